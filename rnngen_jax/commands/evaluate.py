"""Measure a run's likelihood on a whole split, and say by which protocol.

  rnngen evaluate --workdir=runs/digits
  rnngen evaluate --workdir=runs/digits --split=validation --checkpoint=latest
  rnngen evaluate --workdir=runs/vae --iw_samples=1000 --num=1000

Prints nats per image and bits per dimension with their standard errors. The numbers do not depend
on the batch size. A run of several seeds is measured seed by seed: the numbers are the
mean over them and its standard error.

Appends them to WORKDIR/evaluations.jsonl, one JSON object per line and evaluation, of which nothing
is ever overwritten, with the step, the protocol, the time, and a digest of the model and the
parameters that were evaluated; WORKDIR/evaluation.json is the newest of them.

The likelihood of a model of latent variables is a bound: the ELBO, or with --iw_samples=K the
importance-weighted bound of K draws, which is tighter and costs K passes an image. Besides, the
reconstruction's and the KL's nats, the squared error of reconstructions, and how many latent
variables are in use; evaluation.json has the KL of each.

  rnngen evaluate --workdir=runs/gan --classifier=runs/judge
  rnngen evaluate --workdir=runs/gan --classifier=runs/judge --samples=10000 --neighbours=near.png

With --classifier, a run of the config `classifier`, any model that samples is also measured by what
it draws: its samples against all images of --split, in the features of that classifier. Beside
these figures stands their baseline, those of as many real images of the train split (of test for
--split=train) in the samples' place. They depend on the classifier and on the numbers of images,
and are no FID. A class-conditional model is given the train split's classes. --neighbours shows
the first 16 samples, each beside the 3 training images that are nearest to it pixel by pixel.

  rnngen evaluate --workdir=runs/gan --inception=weights-inception-2015-12-05-6726825d.pth

With --inception, a file of the weights that torch-fidelity publishes, the same in the features of
the Inception network, whose Fréchet distance is the FID; with other weights the figures are named
after them. Grey images are repeated to RGB, and all are resized bilinearly to 299x299; a CPU does
a few images a second.
"""

from rnngen_jax.commands import figures
from rnngen_jax.commands.base import (
    CHECKPOINT,
    NUM,
    SEED,
    SEED_INDEX,
    SPLIT,
    TEMPERATURE,
    WORKDIR,
    Flag,
    bar,
    check_amount,
    check_split,
)
from rnngen_jax.config import require
from rnngen_jax.errors import UserError

FLAGS = (
    WORKDIR,
    CHECKPOINT,
    SEED_INDEX._replace(help=f"{SEED_INDEX.help}; by default all of them", default=None),
    SPLIT,
    NUM._replace(help="how many images, from the split's start; 0 for all", default=0),
    Flag(
        "iw_samples",
        "integer",
        "draws of the latents for the importance-weighted bound; 0 for the ELBO",
        0,
    ),
    Flag("classifier", "string", "folder of the classifier that judges samples"),
    Flag("inception", "string", "file of torch-fidelity's Inception weights, for the FID"),
    Flag("samples", "integer", "how many samples; by default as many as the split has images"),
    Flag("neighbours", "string", "FILE.png to write, of samples and their nearest training images"),
    TEMPERATURE._replace(help=f"of samples; {TEMPERATURE.help}; by default 1", default=None),
    SEED._replace(help="of samples, 0 or more; by default 0", default=None),
)


def run(
    workdir: str,
    checkpoint: str | None,
    seed_index: int | None,
    split: str,
    num: int,
    iw_samples: int,
    classifier: str | None,
    inception: str | None,
    samples: int | None,
    neighbours: str | None,
    temperature: float | None,
    seed: int | None,
) -> int:
    """Evaluates.

    Args:
      workdir: the run's folder.
      checkpoint: "best", "latest", a step, or `None`.
      seed_index: which seed of a run of several, or `None` for all.
      split: the split to score.
      num: how many images, 0 for all.
      iw_samples: of the importance-weighted bound, 0 for the model's own likelihood.
      classifier: folder of the samples' judge, or `None`.
      inception: file of the Inception network's weights, or `None`.
      samples: how many of them, `None` for as many as the split has images.
      neighbours: the picture to write, or `None`.
      temperature, seed: of the samples, `None` for 1 and 0.

    Returns:
      0.

    Raises:
      UserError: no such run, checkpoint, seed or split, a model with nothing to measure or
        without the bound that is asked for, or a judge that does not fit.
      RunError: a likelihood that is not finite.
      OSError: the record cannot be written.
    """
    check_split(split)
    require(num >= 0, "--num", num, "≥ 1, or 0 for all")
    require(iw_samples >= 0, "--iw_samples", iw_samples, "≥ 1, or 0 for the ELBO")
    _check_samples(classifier, inception, samples, neighbours, temperature, seed)

    from rnngen_jax import runs
    from rnngen_jax.evaluation import classifying, likelihood, records
    from rnngen_jax.runs import evaluating, judging

    which = None if seed_index is None else [seed_index]
    opened = runs.load_each(workdir, checkpoint, which, track=bar)
    first = opened[0]
    judge = None
    if classifier is not None:
        judge = judging.open_judge(classifier, first.dataset, "--classifier")
    network = judging.open_network(inception, first.spec)
    check_amount("--samples", samples or 0, first.spec, "memory")
    seed, temperature = seed or 0, 1.0 if temperature is None else temperature
    if neighbours is not None:
        classifying.sampler(first.model, first.dataset)  # which refuses a model that cannot sample
    record = evaluating.measure(
        opened,
        split,
        num=num,
        iw_samples=iw_samples,
        judge=judge,
        network=network,
        samples=samples,
        seed=seed,
        temperature=temperature,
    )
    if neighbours is not None:
        judging.write_neighbours(neighbours, first, seed, temperature)
    metrics = record["metrics"]
    whose = "" if len(opened) == 1 else f", {len(opened)} seeds"
    whose = f", seed {record['seed']}" if "seed" in record else whose
    print(f"checkpoint:     step {first.step} of {workdir}{whose}")
    figures.print_metrics(metrics, len(opened))
    figures.print_usage(metrics, record.get("latents", []))
    if "cross_entropy" in metrics:
        print(f"{'accuracy:':<15} {metrics['accuracy']:.4f}")
        print(f"{'cross-entropy:':<15} {metrics['cross_entropy']:.4f} nats")
    print(f"protocol:       {likelihood.describe(record['protocol'])}")
    for name in ("samples", "inception"):
        if name in record:
            figures.print_samples(record[name], len(opened))
    if neighbours is not None:
        print(f"neighbours:     {neighbours}")
    # Last, so that a folder that cannot be written to does not cost the figures.
    records.add(first.workdir, record)
    print(first.workdir / records.NEWEST)
    return 0


def _check_samples(
    classifier: str | None,
    inception: str | None,
    samples: int | None,
    neighbours: str | None,
    temperature: float | None,
    seed: int | None,
) -> None:
    """Raises a `UserError` for flags of samples that do not fit each other."""
    from rnngen_jax.evaluation import pictures
    from rnngen_jax.runs import arguments

    judged = classifier is not None or inception is not None
    if samples is not None and not judged:
        raise UserError(
            f"--samples={samples} has no effect without --classifier or --inception; give both."
        )
    for flag, value in (("--temperature", temperature), ("--seed", seed)):
        if value is not None and not judged and neighbours is None:
            raise UserError(
                f"{flag}={value} has no effect without --classifier, --inception or --neighbours."
            )
    if samples is not None:
        require(samples >= 4, "--samples", samples, "≥ 4")
    if temperature is not None:
        arguments.check_temperature(temperature, "--temperature")
    if seed is not None:
        arguments.check_seed(seed, "--seed")
    if neighbours is not None:
        fits = pictures.ending(neighbours) == ".png"
        require(fits, "--neighbours", neighbours, "a file that ends in .png")
