"""Measure a run's likelihood on a whole split, and state the protocol.

  rnngen evaluate --workdir=runs/digits
  rnngen evaluate --workdir=runs/digits --split=validation --checkpoint=latest
  rnngen evaluate --workdir=runs/vae --iw_samples=1000 --num=1000

Prints nats per image and bits per dimension with their standard errors. The numbers do not depend
on the batch size. A run of several seeds is measured seed by seed: the numbers are the mean over
seeds and its standard error.

Appends a record to WORKDIR/evaluations.jsonl, one JSON object per line and evaluation, with the
step, the protocol, the time, and a digest of the model and parameters that were evaluated; earlier
records are never overwritten. WORKDIR/evaluation.json is the newest record.

The likelihood of a latent-variable model is a lower bound: the ELBO, or with --iw_samples=K the
importance-weighted bound of K draws, which is tighter and costs K passes per image. It also prints
the nats of reconstruction and KL, the squared error of reconstructions, and how many latent
variables are active; evaluation.json has the KL of each variable.

  rnngen evaluate --workdir=runs/gan --classifier=runs/judge
  rnngen evaluate --workdir=runs/gan --classifier=runs/judge --samples=10000 --neighbours=near.png

The likelihood of a model of codes is a bound, too: it counts the grid of codes that the encoder
gives an image, under each prior. With --code_candidates=S one more row, `candidates`, sums over S
grids, that one and those that cost the encoder least, each of which adds to the image's
probability. It costs S passes per image.

  rnngen evaluate --workdir=runs/codes --code_candidates=64

With --classifier, the folder of a run of the config `classifier`, any model that samples is also
measured by its samples: they are compared with all images of --split in the features of that
classifier. A baseline stands beside these figures: the same for as many real images of the train
split (of test for --split=train) in place of the samples. The figures depend on the classifier and
on the numbers of images, and are not FIDs. A class-conditional model is given the classes of the
train split. --neighbours shows the first 16 samples, each beside the 3 training images nearest to
it in pixel space.

  rnngen evaluate --workdir=runs/gan --inception=weights-inception-2015-12-05-6726825d.pth

A model of sequences is given the first frames (config.data.context) and predicts those that follow
(config.data.horizon): `mse` is the squared error of values in [0, 1], summed over a frame's pixels,
beside that of showing the last given frame again. --protocol chooses in whose terms SSIM and bytes
are: strict, openstl, predrnn or vpn. evaluation.json has all figures frame by frame.

  rnngen evaluate --workdir=runs/video --protocol=openstl

With --inception, a file of the weights that torch-fidelity publishes, samples are compared in the
features of the Inception network, whose Fréchet distance is the FID; with other weights the figures
are named after them. Grey images are repeated to RGB, and all are resized bilinearly to 299x299; a
CPU processes a few images per second.

Batches are spread over all devices. On several hosts, start the same command on each, as for train:
all of them compute, and the first one prints and writes.
"""

from typing import NamedTuple

from rnngen_jax.commands import figures, flags
from rnngen_jax.commands.base import bar, check_amount, first, joining
from rnngen_jax.commands.flags import Flag, Group, Which, check_split
from rnngen_jax.config import require, require_choice
from rnngen_jax.errors import UserError

PROTOCOLS = ("strict", "openstl", "predrnn", "vpn")  # `forecasting.PROTOCOLS`, here for --help


class Judged(NamedTuple):
    """How samples are judged.

    Attributes:
      classifier: folder of the classifier, or `None`.
      inception: file of the Inception network's weights, or `None`.
      samples: number of samples, or `None` for as many as the split has images.
      neighbours: picture of samples and their nearest training images to write, or `None`.
      temperature, seed: of the samples, or `None` for 1 and 0.
    """

    classifier: str | None
    inception: str | None
    samples: int | None
    neighbours: str | None
    temperature: float | None
    seed: int | None

    def check(self) -> None:
        """Raises a `UserError` for invalid flags, and for flags without effect."""
        from rnngen_jax.evaluation import pictures
        from rnngen_jax.runs import arguments

        judged = self.classifier is not None or self.inception is not None
        if self.samples is not None and not judged:
            raise UserError(
                f"--samples={self.samples} has no effect without --classifier or --inception; "
                "give one of them."
            )
        for flag, value in (("--temperature", self.temperature), ("--seed", self.seed)):
            if value is not None and not judged and self.neighbours is None:
                raise UserError(
                    f"{flag}={value} has no effect without --classifier, --inception or "
                    "--neighbours; give one of them."
                )
        if self.samples is not None:
            require(self.samples >= 4, "--samples", self.samples, "≥ 4")
        if self.temperature is not None:
            arguments.check_temperature(self.temperature, "--temperature")
        if self.seed is not None:
            arguments.check_seed(self.seed, "--seed")
        if self.neighbours is not None:
            fits = pictures.ending(self.neighbours) == ".png"
            require(fits, "--neighbours", self.neighbours, "a file that ends in .png")


ALL_SEEDS = flags.SEED_INDEX._replace(
    help=f"{flags.SEED_INDEX.help}; by default all of them", default=None
)

FLAGS = (
    flags.RUN._replace(flags=(flags.WORKDIR, flags.CHECKPOINT, ALL_SEEDS)),
    flags.SPLIT,
    flags.NUM._replace(help="how many images, from the start of the split; 0 for all", default=0),
    Flag(
        "iw_samples",
        "integer",
        "draws of the latents for the importance-weighted bound; 0 for the ELBO",
        0,
    ),
    Flag(
        "code_candidates",
        "integer",
        "grids of codes that a tighter bound sums over, in a row of its own; 0 for none",
        0,
    ),
    Flag(
        "protocol",
        "string",
        "of predicted frames: strict, openstl, predrnn or vpn",
        "strict",
    ),
    Group(
        "judged",
        Judged,
        (
            Flag("classifier", "string", "folder of the classifier that judges samples"),
            Flag("inception", "string", "torch-fidelity's file of Inception weights, for the FID"),
            Flag("samples", "integer", "how many samples; by default as many as images in --split"),
            Flag("neighbours", "string", "FILE.png of samples and their nearest training images"),
            flags.TEMPERATURE._replace(
                help=f"of samples: {flags.TEMPERATURE.help}; by default 1", default=None
            ),
            flags.SEED._replace(help="seed of samples, ≥ 0; by default 0", default=None),
        ),
    ),
    flags.HOSTS,
)


@joining
def run(
    which: Which,
    split: str,
    num: int,
    iw_samples: int,
    code_candidates: int,
    protocol: str,
    judged: Judged,
) -> None:
    """Evaluates a run.

    Args:
      which: the run and checkpoint; all of its seeds unless it names one.
      split: the split to measure.
      num: number of images, 0 for all.
      iw_samples: draws of the importance-weighted bound, 0 for the model's own likelihood.
      code_candidates: grids of codes of a tighter bound, 0 for none.
      protocol: of predicted frames.
      judged: how samples are judged, if they are.

    Raises:
      UserError: an invalid flag; no such run, checkpoint, seed or split; a model with nothing to
        measure or without the bound that is asked for; or a judge of other images.
      RunError: a likelihood that is not finite.
      OSError: the record cannot be written.
    """
    check_split(split)
    require(num >= 0, "--num", num, "≥ 1, or 0 for all")
    require(iw_samples >= 0, "--iw_samples", iw_samples, "≥ 1, or 0 for the ELBO")
    require(code_candidates >= 0, "--code_candidates", code_candidates, "≥ 1, or 0 for none")
    judged.check()
    require_choice("--protocol", protocol, PROTOCOLS)

    from rnngen_jax import runs
    from rnngen_jax.evaluation import classifying, likelihood, records
    from rnngen_jax.runs import evaluating, judging

    seeds = None if which.seed_index is None else [which.seed_index]
    opened = runs.load_each(which.workdir, which.checkpoint, seeds, track=bar)
    one = opened[0]
    judge = None
    if judged.classifier is not None:
        judge = judging.open_judge(judged.classifier, one.dataset, "--classifier")
    judges = {"judge": judge, "network": judging.open_network(judged.inception, one.spec)}
    temperature = 1.0 if judged.temperature is None else judged.temperature
    drawn = {"seed": judged.seed or 0, "temperature": temperature}
    check_amount("--samples", judged.samples or 0, one.spec, "memory")
    if judged.neighbours is not None:
        classifying.sampler(one.model, one.dataset)  # refuses a model that cannot sample
    bounds = {"iw_samples": iw_samples, "code_candidates": code_candidates}
    if protocol != "strict" and one.model.sequential is None:
        raise UserError(
            f"--protocol={protocol} has no effect with {one.model.name}, which is no model of "
            "sequences; leave it out."
        )
    options = {"num": num, "samples": judged.samples, "protocol": protocol, **bounds}
    record = evaluating.measure(opened, split, **options, **judges, **drawn)
    if judged.neighbours is not None:
        judging.write_neighbours(judged.neighbours, one, **drawn)
    if not first():
        return
    metrics = record["metrics"]
    whose = "" if len(opened) == 1 else f", {len(opened)} seeds"
    whose = f", seed {record['seed']}" if "seed" in record else whose
    print(f"checkpoint:     step {one.step} of {which.workdir}{whose}")
    figures.print_metrics(metrics, len(opened))
    figures.print_rows(metrics, len(opened))
    figures.print_codes(metrics)
    figures.print_forecasts(metrics, len(opened))
    figures.print_usage(metrics, record.get("latents", []))
    if "cross_entropy" in metrics:
        print(f"{'accuracy:':<15} {metrics['accuracy']:.4f}")
        print(f"{'cross-entropy:':<15} {metrics['cross_entropy']:.4f} nats")
    print(f"protocol:       {likelihood.describe(record['protocol'])}")
    for name in ("samples", "inception"):
        if name in record:
            figures.print_samples(record[name], len(opened))
    if judged.neighbours is not None:
        print(f"neighbours:     {judged.neighbours}")
    # Last, so that the figures are printed even if the folder cannot be written to.
    records.add(one.workdir, record)
    print(one.workdir / records.NEWEST)
