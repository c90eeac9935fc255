"""Training of a run in its folder: checkpoints, metrics, grids of samples and status."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from rnngen_jax import continuing, data, experiment, paths
from rnngen_jax.config import require
from rnngen_jax.data.base import Dataset
from rnngen_jax.data.feed import make_feed
from rnngen_jax.data.transforms import evaluation_transform, training_transform
from rnngen_jax.errors import DivergedError, UserError
from rnngen_jax.evaluation import animations, inputs, pictures, sampling
from rnngen_jax.evaluation.validation import validator
from rnngen_jax.experiment import Experiment
from rnngen_jax.hosts.peers import ALONE, Peers
from rnngen_jax.lock import exclusive
from rnngen_jax.models.base import Extra, Model, Params
from rnngen_jax.paths import Path
from rnngen_jax.runs import coded, judging, tokenizers
from rnngen_jax.runs import folder as folders
from rnngen_jax.runs import status as statuses
from rnngen_jax.runs.backend import start_backend
from rnngen_jax.runs.run import Run, load
from rnngen_jax.training import loop, opening, program
from rnngen_jax.training.checkpoints import open_checkpoints
from rnngen_jax.training.ledger import SILENT, Ledger
from rnngen_jax.training.outcomes import Outcome
from rnngen_jax.training.preemption import NEVER, Interruption, agreed, stoppable
from rnngen_jax.training.privacy import epsilon


def train(
    config: Mapping[str, Any] | Experiment,
    workdir: str | os.PathLike[str],
    *,
    interruption: Interruption = NEVER,
    peers: Peers = ALONE,
) -> Outcome:
    """Trains a model on a data set, or resumes a run.

    Locks the folder, and keeps its status.json, even if this raises. The first process prints
    progress.

    Args:
      config: a `ConfigDict` as config files return it, a nested dict, or the `Experiment` that
        `experiment.check` makes of either.
      workdir: the run's folder, created if missing.
      interruption: how the run may be asked to stop; the library installs no signal handlers.
      peers: the other processes of the run, as `rnngen_jax.hosts.joined` yields them.

    Returns:
      How training ended.

    Raises:
      UserError: an invalid config, or a folder that holds another run or is in use.
      DivergedError: a number that has to be finite is not.
      RunError: training failed.
    """
    given = config if isinstance(config, Experiment) else experiment.check(config)
    folder = paths.reached(workdir)
    if paths.exists(folder) and not folder.is_dir():
        raise UserError(f"--workdir={folder} is not a folder; give one, or a new name.")
    start_backend()
    return _train_alone(given, folder, agreed(interruption), peers)


def _train_alone(
    given: Experiment, folder: Path, interruption: Interruption, peers: Peers
) -> Outcome:
    """Trains in a folder that is locked meanwhile."""
    first = jax.process_index() == 0
    with exclusive(folder) if first else contextlib.nullcontext():
        return _train(given, folder, first, interruption, peers)


def _train(
    given: Experiment, folder: Path, first: bool, interruption: Interruption, peers: Peers
) -> Outcome:
    """Trains in a locked folder; only the `first` process writes and prints."""
    track = stoppable(interruption)
    tokenizers.refuse_codes(given)
    settings, begins = folders.settled(folder, given)
    found = coded.pinned(settings.data, _say if first else lambda line: None)
    settings = dataclasses.replace(settings, data=found)
    dataset = data.load(settings.data)
    frozen, announced = None, []
    if settings.codes is not None and not _has_checkpoint(folder):
        if not settings.tokenizer:  # what does not fit is refused before a tokenizer is trained
            experiment.build(settings, dataset.spec)
        opened = _tokenizer(settings, folder, interruption, peers)
        if isinstance(opened, Outcome):
            return opened
        tokenizers.require_images(opened, dataset)
        settings, frozen = tokenizers.adopt(settings, opened)
        announced.append(tokenizers.described(opened))
    if settings.perceptual and not _has_checkpoint(folder):
        opened = judging.open_perceptual(settings, dataset)
        settings, frozen = judging.adopt(settings, opened)
        announced.append(f"perceptual loss by {opened.workdir}, step {opened.step}")
    model = experiment.build(settings, dataset.spec, frozen)
    if model.sequential is not None:
        settings.data.lengths(dataset.spec.frames)  # else its evaluation would be the first to tell
    training = settings.training
    batches, available = program.batches_per_step(settings.optimizers), dataset.splits["train"].num
    most = f"≤ {available // batches} ({available} images, {batches} batches per step)"
    where = "config.training.batch_size"
    require(training.batch_size * batches <= available, where, training.batch_size, most)
    feed = make_feed(
        dataset.splits["train"],
        training.batch_size * batches,
        training.seed,
        settings.data.placement,
        training.seeds,
    )
    judge = None
    if settings.evaluation.classifier:
        judge = judging.open_judge(
            settings.evaluation.classifier, dataset, "config.evaluation.classifier"
        )
    validate = validator(
        model,
        evaluation_transform(dataset),
        dataset,
        settings.evaluation,
        judge,
        warn=_say if first else lambda line: None,
        track=track,
    )
    announced += [
        opening.data(dataset),
        *opening.ended_schedules(settings.optimizers, training.steps),
    ]
    if begins:
        announced += opening.warmups(given.optimizers, settings.optimizers)
    with (
        folders.recorded(settings, folder) if first else contextlib.nullcontext(),
        _reporting(folder, training.steps, peers) if first else _silent() as (ledger, finish),
    ):
        outcome = loop.train(
            model,
            feed,
            training_transform(settings.data, dataset),
            training,
            settings.optimizers,
            folder,
            continuing.identity(settings, dataset.spec),
            defaults=continuing.defaults(settings),
            validate=validate,
            draw=grid_sampler(model, settings, dataset, folder, track),
            describe=accountant(settings, dataset.splits["train"].num),
            record=experiment.to_dict(settings),
            announced=announced,
            ledger=ledger,
            interruption=interruption,
            peers=peers,
        )
        finish(outcome)
    if first and outcome.ended and (folder / "samples").exists():
        _animate(folder / "samples")
    return outcome


def _has_checkpoint(folder: Path) -> bool:
    """Whether a run has a checkpoint to go on from."""
    with open_checkpoints(folder / "checkpoints") as checkpoints:
        return checkpoints.newest_meta() is not None


def _tokenizer(
    settings: Experiment, folder: Path, interruption: Interruption, peers: Peers
) -> Run | Outcome:
    """Opens the run of the tokenizer, trained first if the config names none.

    Returns:
      The run, or how its training ended if it was asked to stop.
    """
    if settings.tokenizer:
        return tokenizers.open_tokenizer(settings)
    own = folder / tokenizers.FOLDER
    if jax.process_index() == 0:
        model = settings.tokenizer_model
        _say(f"tokenizer: none is given, so one is trained in {own}, with config.{model}.")
    outcome = _train_alone(tokenizers.own_experiment(settings), own, interruption, peers)
    return load(own) if outcome.ended else outcome


@contextlib.contextmanager
def _reporting(
    folder: Path, steps: int, peers: Peers
) -> Iterator[tuple[Ledger, Callable[[Outcome], None]]]:
    """Keeps status.json: yields the run's ledger, and a function for its outcome.

    Training that is refused before it starts leaves the status as it is.
    """
    status, at = statuses.Reporter(folder, steps), None

    def report(step: int) -> None:
        nonlocal at
        at = step
        status.write("running", step, "")

    peers.when_over(lambda message: None if at is None else status.write("failed", at, message))
    try:
        ledger = Ledger(report, status.spending, status.saved)
        yield ledger, lambda outcome: status.write(outcome.state, outcome.step, "")
    except BaseException as error:
        if at is not None:
            state = "failed"
            if isinstance(error, DivergedError | KeyboardInterrupt):
                state = "diverged" if isinstance(error, DivergedError) else "interrupted"
            with contextlib.suppress(OSError):  # it must not hide the error itself
                status.write(state, at, str(error) or type(error).__name__)
        raise


@contextlib.contextmanager
def _silent() -> Iterator[tuple[Ledger, Callable[[Outcome], None]]]:
    """Reports nothing, for processes that do not write."""
    yield SILENT, (lambda outcome: None)


def accountant(settings: Experiment, num: int) -> Callable[[int], dict[str, float]] | None:
    """Makes `describe(step)`: the ε and δ of each player with private gradients, or `None`.

    Args:
      settings: the experiment.
      num: number of training images.

    Raises:
      UserError: the accountant's package is not installed.
    """
    private = {p: section for p, section in settings.optimizers.items() if section.private_noise}
    if not private:
        return None
    rate = settings.training.batch_size / num

    def describe(step: int) -> dict[str, float]:
        found = {}
        for player, section in private.items():
            steps, delta = step * section.updates_per_step, section.private_delta
            found[f"epsilon/{player}"] = epsilon(section.private_noise, rate, steps, delta)
            found[f"delta/{player}"] = delta
        return found

    describe(1)  # so that a missing package is reported before the first step
    return describe


def grid_sampler(
    model: Model,
    settings: Experiment,
    dataset: Dataset,
    folder: Path,
    track: Callable[[range], Iterable[int]] = iter,
) -> Callable[[Params, Extra, int], np.ndarray] | None:
    """Makes `sample(params, extra, step)`, which writes `samples/step_STEP.png` and returns it.

    Every step uses the same noise, so that grids can be compared. With several seeds, the first is
    drawn. For a model that reconstructs images but cannot sample, the grid shows validation images
    and their reconstructions. `track` wraps each range over batches, and may stop the grid by
    raising.
    """
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

        def rebuild(params: Params, extra: Extra, step: int) -> np.ndarray:
            rebuilt = decode(params, extra, encode(params, extra, given, known), known)
            return write(pictures.reconstructions(given, rebuilt, model.spec.levels), step)

        return rebuild

    sample_images = sampling.sampler(model, track)
    labels = sampling.cycled(model, num)
    key = jax.random.key(settings.training.seed)

    def sample(params: Params, extra: Extra, step: int) -> np.ndarray:
        images = sample_images(params, extra, key, num, labels, 1.0)
        return write(pictures.grid(np.asarray(images), model.spec.levels), step)

    return sample


def _animate(folder: Path) -> None:
    """Writes the grids of a run, which share their noise, as `training.gif` beside them."""
    frames = animations.training(folder)
    if frames is not None:
        animations.write_gif(folder / "training.gif", frames, hold=animations.HOLD)


def _say(line: str) -> None:
    """Prints a line, above the progress bar if there is one."""
    from tqdm import tqdm

    tqdm.write(line)
