"""Train a model on a data set, or go on with a run that was interrupted.

  rnngen train --config=pixel_rnn --workdir=runs/digits
  rnngen train --config=pixel_rnn --workdir=runs/digits --config.model.cell=lstm
  rnngen train --config=my_config.py --workdir=runs/mine

--config is the name of a config that ships, or a Python file with a function get_config. One flag
changes one choice: what the config set for the choice that it replaces, such as AdamW's weight
decay under --config.optimizer.name=sgd, goes back to its default, and a line says so.

--config.training.replicas=4 trains four runs at once, replica r with the seed
config.training.seed + r: metrics.jsonl then has each metric's mean, its standard error and each
replica's value.

Without a checkpoint in --workdir a new run begins; with one, the same command goes on from the
newest. A folder that holds a run of another config is refused, and one that another training is
using. More --config.training.steps go on at the learning rate's last value: the schedule is as long
as the steps that the run began with, unless --config.optimizer.decay_steps makes it longer from the
start.

Ctrl-C and SIGTERM finish the steps under way, save the run and end with 130 and 42; a second one
ends at once. --preempted_exit_code sets another than 42, for a cluster that takes it for a failure.

On several hosts, start the same command on each, with --workdir on a shared disk, and with the
environment variables JAX_COORDINATOR_ADDRESS (HOST:PORT of the first), JAX_NUM_PROCESSES and
JAX_PROCESS_ID; the latter two may be missing where JAX knows the cluster, such as Slurm.
"""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from rnngen_jax import interrupts
from rnngen_jax.commands.base import CONFIG, PREEMPTED_EXIT_CODE, WORKDIR, start_backend
from rnngen_jax.config import require
from rnngen_jax.errors import RunError, UserError
from rnngen_jax.lock import exclusive

if TYPE_CHECKING:
    import numpy as np

    from rnngen_jax.data.base import Dataset
    from rnngen_jax.experiment import Experiment
    from rnngen_jax.models.base import Extra, Model, Params

FLAGS = (
    CONFIG._replace(required=True),
    WORKDIR._replace(help="the run's folder, made if missing"),
    PREEMPTED_EXIT_CODE,
)


def run(config: Any, workdir: str, preempted_exit_code: int) -> int:
    """Trains.

    Args:
      config: the `ConfigDict` of --config.
      workdir: the run's folder.
      preempted_exit_code: what a process ends with that SIGTERM has asked to.

    Returns:
      0, also when the run was asked to end early: its state is saved then.

    Raises:
      UserError: a config that does not fit, or a folder that holds another run or is in use.
      RunError: the training failed.
    """
    from rnngen_jax import experiment

    code, where = preempted_exit_code, "--preempted_exit_code"
    require(0 <= code <= 255, where, code, "0 to 255")
    interrupts.set_preempted_exit_code(code)
    given = experiment.check(config)
    folder = pathlib.Path(workdir)
    if os.path.lexists(folder) and not folder.is_dir():
        raise UserError(f"--workdir={folder} is not a folder; give one, or a new name.")

    import jax

    join_hosts()
    start_backend()
    first = jax.process_index() == 0
    with exclusive(folder) if first else contextlib.nullcontext():
        _train(given, folder, first)
    return 0


def _train(given: "Experiment", folder: pathlib.Path, first: bool) -> None:
    """Trains in a folder that is held; `first` of the processes alone writes and prints."""
    from rnngen_jax import data, experiment
    from rnngen_jax.commands.classifier import open_judge
    from rnngen_jax.data.feed import make_feed
    from rnngen_jax.data.transforms import evaluation_transform, training_transform
    from rnngen_jax.evaluation.validation import validator
    from rnngen_jax.training import opening
    from rnngen_jax.training.loop import batches_a_step, train
    from rnngen_jax.training.preemption import Interruption, stoppable

    interruption = Interruption(interrupts.asked, interrupts.deferred)
    track = stoppable(interruption)
    begun = refuse_other_run(folder, given)
    settings, begins = settled(folder, given, begun)
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
        track=track,
    )
    announced = [
        opening.data(dataset),
        *opening.ended_schedules(settings.optimizers, training.steps),
    ]
    if begins:
        announced += opening.warmups(given.optimizers, settings.optimizers)
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
            draw=drawer(model, settings, dataset, folder, track),
            describe=accountant(settings, dataset.splits["train"].num),
            record=experiment.to_dict(settings),
            announced=announced,
            interruption=interruption,
        )
    if outcome.interrupted:
        interrupts.told()
    elif first:
        if (folder / "samples").exists():
            animate(folder / "samples")
            print(f"pictures: {folder / 'samples'}")
        print(f"metrics: {folder / 'metrics.jsonl'}")
        print(f"evaluate with: rnngen evaluate --workdir={folder}")


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
    experiment.to_json(settings, path)
    try:
        yield
    except (UserError, OSError):
        if old is None:
            path.unlink()
        else:
            with replacing(path) as temporary:
                temporary.write_bytes(old)
        raise


def refuse_other_run(folder: pathlib.Path, given: "Experiment") -> "Experiment | None":
    """Raises a `UserError` if config.json is of a run that `given` cannot continue.

    A config.json alone, of a run that ended before its first step, protects nothing.

    Returns:
      What config.json says of the run that has begun; `None` without one.
    """
    from rnngen_jax import experiment

    begun = (folder / "metrics.jsonl", folder / "checkpoints")
    if not (folder / "config.json").exists() or not any(map(_holds_something, begun)):
        return None
    found = experiment.from_json(folder / "config.json")
    _refuse_difference(folder, found, experiment.resolve(given, found))
    return found


def settled(
    folder: pathlib.Path, given: "Experiment", begun: "Experiment | None"
) -> "tuple[Experiment, bool]":
    """The resolved settings that a run begins or goes on with, and whether it begins.

    Reading checkpoints asks JAX for its processes, which have to have joined before.

    Args:
      folder: the run's.
      given: the settings of the command.
      begun: what config.json says of the run in the folder, if there is one.

    Raises:
      UserError: the checkpoints are of another config, or of an older version, which did not keep
        its config in them, and there is no config.json.
    """
    from rnngen_jax import experiment
    from rnngen_jax.training.checkpoints import open_checkpoints

    with open_checkpoints(folder / "checkpoints") as checkpoints:
        meta = checkpoints.newest_meta()
    if meta is None:
        return experiment.resolve(given, begun), begun is None
    where = folder / "checkpoints" / str(meta["step"])
    if meta.get("config") is None:
        if begun is None:
            raise UserError(
                f"{where} does not say its config, as it is of an older version, and there is no "
                f"{folder / 'config.json'}; put that back, or choose another --workdir."
            )
        return experiment.resolve(given, begun), False
    kept = experiment.from_record(meta["config"], where)
    settings = experiment.resolve(given, begun or kept)
    _refuse_difference(where, kept, settings)
    return settings, False


def _refuse_difference(where: pathlib.Path, begun: "Experiment", settings: "Experiment") -> None:
    """Raises a `UserError` that names the fields by which `settings` cannot continue a run."""
    from rnngen_jax import experiment

    changed = experiment.difference(begun, settings)
    if changed:
        raise UserError(
            f"{where} holds a run of another config: {'; '.join(changed)}.\n"
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
    model: "Model",
    settings: "Experiment",
    dataset: "Dataset",
    folder: pathlib.Path,
    track: "Callable[[range], Iterable[int]]" = iter,
) -> "Callable[[Params, Extra, int], np.ndarray] | None":
    """`draw(params, extra, step)` writes a grid of samples to `samples/step_STEP.png`, returns it.

    The same noise at every step, so that the grids can be compared. Of several replicas, the first.
    Of a model that can rebuild images but draw none, the grid is of validation images and what
    becomes of them. `track` wraps each range over batches, and may end the grid by raising.
    """
    import jax
    import numpy as np

    from rnngen_jax.evaluation import inputs, pictures, sampling

    num = settings.training.num_samples

    def write(picture: np.ndarray, step: int) -> np.ndarray:
        if jax.process_index() == 0:
            pictures.write_png(folder / "samples" / f"step_{step:08}.png", picture)
        return picture

    if model.sample is None:
        if model.latent is None:
            return None
        given, classes = inputs.read_split(dataset, "validation", num)
        known = classes if model.conditional else None
        encode, decode = sampling.encoder(model, track), sampling.decoder(model, track)

        def rebuild(params: "Params", extra: "Extra", step: int) -> np.ndarray:
            rebuilt = decode(params, extra, encode(params, extra, given, known), known)
            return write(pictures.reconstructions(given, rebuilt, model.spec.levels), step)

        return rebuild

    draw_images = sampling.sampler(model, track)
    labels = sampling.cycled(model, num)
    key = jax.random.key(settings.training.seed)

    def draw(params: "Params", extra: "Extra", step: int) -> np.ndarray:
        images = draw_images(params, extra, key, num, labels, 1.0)
        return write(pictures.grid(np.asarray(images), model.spec.levels), step)

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
