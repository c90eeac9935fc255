"""Train a model on a data set, or go on with a run that was interrupted.

  rnngen train --config=configs/pixel_rnn.py --workdir=runs/digits
  rnngen train --config=configs/pixel_rnn.py --workdir=runs/digits --config.model.cell=lstm

--config.training.replicas=4 trains four runs at once, replica r with the seed
config.training.seed + r: metrics.jsonl then has each metric's mean, its standard error and each
replica's value.

Without a checkpoint in --workdir a new run begins; with one, the same command goes on from the
newest. A folder that holds a run of another config is refused.

On several hosts, start the same command on each, with --workdir on a shared disk, and with the
environment variables JAX_COORDINATOR_ADDRESS (HOST:PORT of the first), JAX_NUM_PROCESSES and
JAX_PROCESS_ID; the latter two may be missing where JAX knows the cluster, such as Slurm.
"""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from rnngen_jax.commands.base import CONFIG, WORKDIR, start_backend
from rnngen_jax.config import require
from rnngen_jax.errors import RunError, UserError

if TYPE_CHECKING:
    from rnngen_jax.data.base import Dataset
    from rnngen_jax.experiment import Experiment
    from rnngen_jax.models.base import Extra, Model, Params

FLAGS = (CONFIG._replace(required=True), WORKDIR._replace(help="the run's folder, made if missing"))


def run(config: Any, workdir: str) -> int:
    """Trains.

    Args:
      config: the `ConfigDict` of --config.
      workdir: the run's folder.

    Returns:
      0, also when SIGTERM has ended the run early: its state is saved then.

    Raises:
      UserError: a config that does not fit, or a folder that holds another run.
      RunError: the training failed.
    """
    from rnngen_jax import experiment

    settings = experiment.check(config)
    folder = pathlib.Path(workdir)
    refuse_other_run(folder, settings)

    import jax

    join_hosts()
    start_backend()
    from rnngen_jax import data
    from rnngen_jax.commands.classifier import open_judge
    from rnngen_jax.data.feed import make_feed
    from rnngen_jax.data.transforms import evaluation_transform, training_transform
    from rnngen_jax.evaluation.validation import validator
    from rnngen_jax.training.loop import batches_a_step, train

    dataset = data.load(settings.data)
    model = experiment.build(settings, dataset.spec)
    training = settings.training
    batches, available = batches_a_step(settings.optimizers), dataset.splits["train"].num
    most = f"1 to {available // batches}, as a step takes {batches} from {available} images"
    where = "config.training.batch_size"
    require(training.batch_size * batches <= available, where, training.batch_size, most)
    feed = make_feed(
        dataset.splits["train"],
        training.batch_size * batches,
        training.seed,
        settings.data.placement,
        training.replicas,
    )
    first = jax.process_index() == 0
    judge = None
    if settings.evaluation.classifier:
        judge = open_judge(settings.evaluation.classifier, dataset, "config.evaluation.classifier")
    validate = validator(
        model,
        evaluation_transform(dataset),
        dataset,
        settings.evaluation,
        judge,
        warn=_say if first else lambda line: None,
    )
    with recorded(settings, folder / "config.json") if first else contextlib.nullcontext():
        outcome = train(
            model,
            feed,
            training_transform(settings.data, dataset),
            training,
            settings.optimizers,
            folder,
            experiment.identity(settings, dataset.spec),
            validate=validate,
            draw=drawer(model, settings, dataset, folder),
            describe=accountant(settings, dataset.splits["train"].num),
        )
    if first and not outcome.interrupted:
        if (folder / "samples").exists():
            animate(folder / "samples")
            print(f"pictures: {folder / 'samples'}")
        print(f"metrics: {folder / 'metrics.jsonl'}")
        print(f"evaluate with: rnngen evaluate --workdir={folder}")
    return 0


def join_hosts() -> None:
    """Joins the processes of a run on several hosts, if the environment tells of them.

    Raises:
      UserError: variables that are no numbers.
      RunError: the other processes cannot be reached.
    """
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if not address:
        return
    import jax

    count, number = os.environ.get("JAX_NUM_PROCESSES"), os.environ.get("JAX_PROCESS_ID")
    for name, value in (("JAX_NUM_PROCESSES", count), ("JAX_PROCESS_ID", number)):
        require(value is None or value.isdecimal(), name, value, "a number, 0 or more")
    try:
        jax.distributed.initialize(
            address,
            num_processes=None if count is None else int(count),
            process_id=None if number is None else int(number),
        )
    except (RuntimeError, ValueError) as error:
        line = str(error).splitlines()[0]
        raise RunError(f"the processes at {address} could not be joined: {line}") from None


@contextlib.contextmanager
def recorded(settings: "Experiment", path: pathlib.Path) -> Iterator[None]:
    """Writes config.json; takes that back if the training refuses to start."""
    from rnngen_jax import experiment
    from rnngen_jax.files import replacing

    old = path.read_bytes() if path.exists() else None
    new = not path.parent.exists()
    experiment.to_json(settings, path)
    try:
        yield
    except (UserError, OSError):
        if old is None:
            path.unlink()
        else:
            with replacing(path) as temporary:
                temporary.write_bytes(old)
        if new and not any(path.parent.iterdir()):
            path.parent.rmdir()
        raise


def refuse_other_run(folder: pathlib.Path, settings: "Experiment") -> None:
    """Raises a `UserError` if the folder holds a run that `settings` cannot continue.

    A config.json alone, of a run that ended before its first step, protects nothing.
    """
    from rnngen_jax import experiment

    if os.path.lexists(folder) and not folder.is_dir():
        raise UserError(f"--workdir={folder} is not a folder; give one, or a new name.")
    begun = (folder / "metrics.jsonl", folder / "checkpoints")
    if not (folder / "config.json").exists() or not any(map(_holds_something, begun)):
        return
    changed = experiment.difference(experiment.from_json(folder / "config.json"), settings)
    if changed:
        raise UserError(
            f"{folder} holds a run of another config: {'; '.join(changed)}.\n"
            "Choose another --workdir, or give that run's config to go on with it."
        )


def animate(folder: pathlib.Path) -> None:
    """Writes the grids of a training, which have the same noise, as `training.gif` beside them."""
    from rnngen_jax.evaluation import animations

    frames = animations.training(folder)
    if frames is not None:
        animations.write_gif(folder / "training.gif", frames, hold=animations.HOLD)


def accountant(settings: "Experiment", num: int) -> "Callable[[int], dict[str, float]] | None":
    """`describe(step)` gives the ε and δ of each player whose gradients are private.

    Args:
      settings: the experiment.
      num: of training images.

    Raises:
      UserError: the accountant's package is not installed.
    """
    from rnngen_jax.training.privacy import epsilon

    private = {p: section for p, section in settings.optimizers.items() if section.private_noise}
    if not private:
        return None
    rate = settings.training.batch_size / num

    def describe(step: int) -> dict[str, float]:
        found = {}
        for player, section in private.items():
            steps, delta = step * section.turns, section.private_delta
            found[f"epsilon/{player}"] = epsilon(section.private_noise, rate, steps, delta)
            found[f"delta/{player}"] = delta
        return found

    describe(1)  # so that what is missing is said before the first step
    return describe


def drawer(
    model: "Model", settings: "Experiment", dataset: "Dataset", folder: pathlib.Path
) -> "Callable[[Params, Extra, int], None] | None":
    """`draw(params, extra, step)` writes a grid of samples to `samples/step_STEP.png`.

    The same noise at every step, so that the grids can be compared. Of several replicas, the first.
    Of a model that can rebuild images but draw none, the grid is of validation images and what
    becomes of them.
    """
    import jax
    import numpy as np

    from rnngen_jax.evaluation import inputs, pictures, sampling

    num = settings.training.num_samples

    def write(picture: np.ndarray, step: int) -> None:
        if jax.process_index() == 0:
            pictures.write_png(folder / "samples" / f"step_{step:08}.png", picture)

    if model.sample is None:
        if model.latent is None:
            return None
        given, classes = inputs.read_split(dataset, "validation", num)
        known = classes if model.conditional else None
        encode, decode = sampling.encoder(model), sampling.decoder(model)

        def rebuild(params: "Params", extra: "Extra", step: int) -> None:
            rebuilt = decode(params, extra, encode(params, extra, given, known), known)
            write(pictures.reconstructions(given, rebuilt, model.spec.levels), step)

        return rebuild

    draw_images = sampling.sampler(model)
    labels = sampling.cycled(model, num)
    key = jax.random.key(settings.training.seed)

    def draw(params: "Params", extra: "Extra", step: int) -> None:
        images = draw_images(params, extra, key, num, labels, 1.0)
        write(pictures.grid(np.asarray(images), model.spec.levels), step)

    return draw


def _say(line: str) -> None:
    """Prints a line, above the progress bar where there is one."""
    from tqdm import tqdm

    tqdm.write(line)


def _holds_something(path: pathlib.Path) -> bool:
    """Whether a file has content, or a folder an entry."""
    if path.is_dir():
        return any(path.iterdir())
    return path.exists() and path.stat().st_size > 0
