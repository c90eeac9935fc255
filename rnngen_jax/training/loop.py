"""The training loop: calls to the device, and what happens between them."""

import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from rnngen_jax.data.feed import Feed, fetch
from rnngen_jax.errors import RunError, UserError, refusal
from rnngen_jax.models.base import Extra, Model, Params
from rnngen_jax.training import sinks
from rnngen_jax.training.checkpoints import Checkpoints, open_checkpoints
from rnngen_jax.training.config import OptimizerConfig, TrainingConfig
from rnngen_jax.training.digests import named
from rnngen_jax.training.optimizers import make_optimizer
from rnngen_jax.training.parallel import Parallel, make_parallel
from rnngen_jax.training.preemption import watching
from rnngen_jax.training.privacy import Privacy
from rnngen_jax.training.progress import Progress, make_progress
from rnngen_jax.training.replicas import Values, create_each, gather, mean, summarise
from rnngen_jax.training.standing import Clock, Standing
from rnngen_jax.training.state import TrainState, create, evaluated_params
from rnngen_jax.training.step import Transform, Turns, rounds, train_step

Validate = Callable[[Params, Extra], Mapping[str, float]]
Draw = Callable[[Params, Extra, int], None]
Describe = Callable[[int], Mapping[str, float]]


class Outcome(NamedTuple):
    """How a call of `train` ended.

    Attributes:
      step: number of steps done.
      interrupted: SIGTERM ended the run before its last step.
      stopped_early: the validation did not get better for as long as `patience` allows.
      best_step: step of the best validation, `None` without one.
      best_score: its score.
    """

    step: int
    interrupted: bool = False
    stopped_early: bool = False
    best_step: int | None = None
    best_score: float | None = None


def train(
    model: Model,
    feed: Feed,
    transform: Transform,
    config: TrainingConfig,
    optimizers: Mapping[str, OptimizerConfig],
    workdir: str | os.PathLike[str],
    identity: Mapping[str, Any],
    *,
    validate: Validate | None = None,
    draw: Draw | None = None,
    describe: Describe | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Outcome:
    """Trains a model, from the newest sound checkpoint in `workdir` if there is one.

    What falls due at a step is done in this order: the line of training metrics, the validation,
    the grid of samples, the checkpoint. So all that a checkpoint's step gives is on disk before
    the checkpoint, and a run that goes on from it drops later lines and writes them again. A
    checkpoint is also written whenever a validation is better than all before, and after the last
    step. After the last step there is a validation and a grid, too, unless they are turned off.

    On SIGTERM the call under way is finished and its state saved.

    With `config.replicas` above 1, a metric is the mean over replicas and stands with its standard
    error and each replica's value; see `summarise`. The grids are replica 0's.

    Args:
      model: the model.
      feed: the training batches, of `config.batch_size` images for each of the `batches_a_step`,
        for `config.replicas`.
      transform: `transform(batch, key) -> batch`, inside the jitted step.
      config: the section `training`. Its `num_samples` is for whoever makes `draw`.
      optimizers: each player's section, such as `optimizer`.
      workdir: gets `metrics.jsonl`, `tensorboard/` and `checkpoints/`.
      identity: JSON values that say what the checkpoints belong to.
      validate: `validate(params, extra) -> metrics`; the first metric decides which checkpoint is
        best, the lower the better. It is called for each replica. The arrays lie on one device and
        are gone after it returns.
      draw: `draw(params, extra, step)` writes a grid of samples.
      describe: `describe(step) -> metrics` that the number of steps alone decides, such as the
        privacy that is left; they stand in the lines of training metrics.
      devices: the devices to use, all by default.

    Returns:
      How it ended.

    Raises:
      UserError: settings that do not fit each other, the devices, or the checkpoints in `workdir`.
      RunError: a loss, a gradient, a parameter or a validation is not finite, or an image cannot
        be read or a file written after the first step. The checkpoints there are stay good.
    """
    if config.patience and validate is None:
        raise UserError(
            f"config.training.patience={config.patience} needs a validation, which this model has "
            "not; set it to 0."
        )
    turns = _turns(optimizers)
    images = config.replicas * config.batch_size * rounds(turns)  # of a step
    chains = _chains(model, optimizers, config)
    parallel = make_parallel(
        config.parallelism,
        lambda reduce: train_step(model, chains, config.ema_decay, transform, reduce, turns),
        fetch,
        config.seed,
        config.batch_size,
        devices,
        config.replicas,
    )
    make_state = initial_state(model, optimizers, config)
    workdir = pathlib.Path(workdir)
    with ExitStack() as stack:
        checkpoints = stack.enter_context(open_checkpoints(workdir / "checkpoints", config.keep))
        found = checkpoints.resume(jax.eval_shape(make_state), identity, _say)
        if found is None:
            state, standing = jax.jit(make_state)(), Standing()
        else:
            state, standing = found[0], Standing.of(found[1])
        if standing.step >= config.steps or _out_of_patience(standing, config):
            return _nothing_to_do(standing, config)
        if found is not None:
            _say(f"going on from step {standing.step}.")
        sink = stack.enter_context(closing(_sink(workdir, standing.step, standing.logged)))
        progress = stack.enter_context(closing(make_progress(standing.step, config.steps, images)))
        run = _Run(
            players=tuple(model.losses),
            images=images,
            config=config,
            identity=identity,
            parallel=parallel,
            checkpoints=checkpoints,
            sink=sink,
            progress=progress,
            validate=validate,
            draw=draw,
            describe=describe,
            standing=standing,
        )
        start = standing.step
        with watching() as asked:
            try:
                outcome = run.go(state, feed, asked)
            except (UserError, OSError) as error:
                if standing.step == start:
                    raise
                # What stops a run that has begun is no refusal: what is on disk is kept.
                why = f"{refusal(error)}." if isinstance(error, OSError) else error
                raise RunError(f"step {standing.step}: {why}") from error
            checkpoints.wait()
        return outcome


def initial_state(
    model: Model, optimizers: Mapping[str, OptimizerConfig], config: TrainingConfig
) -> Callable[[], TrainState]:
    """Makes the state before the first step, of each replica; `jax.eval_shape` gives its shapes."""
    chains = _chains(model, optimizers, config)
    make_one = functools.partial(create, model, chains, ema=config.ema_decay > 0)
    return functools.partial(create_each, make_one, config.seed, config.replicas)


def batches_a_step(optimizers: Mapping[str, OptimizerConfig]) -> int:
    """Batches of `config.training.batch_size` that one training step takes."""
    return rounds(_turns(optimizers))


def _chains(
    model: Model, optimizers: Mapping[str, OptimizerConfig], config: TrainingConfig
) -> dict[str, optax.GradientTransformation]:
    """Each player's optimizer."""
    return {player: make_optimizer(optimizers[player], config.steps) for player in model.losses}


def _turns(optimizers: Mapping[str, OptimizerConfig]) -> dict[str, Turns]:
    """How each player goes about its updates."""

    def of(config: OptimizerConfig) -> Turns:
        noise, clip = config.private_noise, config.private_clip
        return Turns(config.turns, Privacy(noise, clip) if noise else None)

    return {player: of(config) for player, config in optimizers.items()}


@dataclass
class _Run:
    """What the parts of the loop share."""

    players: tuple[str, ...]
    images: int
    config: TrainingConfig
    identity: Mapping[str, Any]
    parallel: Parallel
    checkpoints: Checkpoints
    sink: sinks.Sink
    progress: Progress
    validate: Validate | None
    draw: Draw | None
    describe: Describe | None
    standing: Standing
    clock: Clock = field(default_factory=Clock)

    def go(self, state: TrainState, feed: Feed, asked: Callable[[int], bool]) -> Outcome:
        """Runs the calls to the end, or until `asked` says to stop."""
        config, standing = self.config, self.standing
        state = self.parallel.place(state)
        resident = self.parallel.place_resident(feed.resident)
        calls = _calls(standing.step, config)
        chunks = feed.chunks(calls, jax.process_index(), jax.process_count())
        unread = None
        self.clock.start()
        for (_, stop), chunk in zip(calls, chunks, strict=True):
            placed = self.parallel.place_chunk(chunk)
            with self.clock.paused():
                call = self.parallel.compiled(state, resident, placed)
            state, metrics = call(state, resident, placed)
            if unread is not None:  # read only now, so that the device is never without work
                self.account(unread)
            unread = metrics
            interrupted, due = asked(stop), _due(stop, config)
            if interrupted or due:
                self.account(unread)
                unread = None
            if due:
                self.between(state)
            if standing.step == config.steps:
                break
            if _out_of_patience(standing, config):
                return self.stop_early()
            if interrupted:
                return self.leave(state)
        return _outcome(standing)

    def account(self, metrics: Any) -> None:
        """Waits for the metrics of a call and adds them."""
        host = self.parallel.host(metrics)
        before = self.standing.step
        self.standing.account(host, self.players)
        done = self.standing.step - before
        self.clock.count(done * self.images)
        self.progress.advance(done, mean(host[f"loss/{self.players[0]}"][-1]))

    def between(self, state: TrainState) -> None:
        """Does what is due at this step; see `train` for the order."""
        config, standing = self.config, self.standing
        step = standing.step
        last = step == config.steps

        def is_due(every: int) -> bool:
            return every > 0 and (last or step % every == 0)

        if is_due(config.log_every):
            known = {} if self.describe is None else self.describe(step)
            means = {**standing.means(), **known}
            self.write("train", {**means, "images_per_second": self.clock.rate()})
            if step % config.log_every == 0:  # the last line may be a part of a full one
                standing.start_line()
            self.clock.start()
        with self.clock.paused():
            improved = False
            if self.validate is not None and is_due(config.validate_every):
                improved = standing.judge(self.score(self.validate, state))
                last = last or _out_of_patience(standing, config)
            if self.draw is not None and is_due(config.sample_every):
                self.draw(*self.evaluated(state, 0), step)
            if improved or last or is_due(config.checkpoint_every):
                self.save(state)

    def score(self, validate: Validate, state: TrainState) -> float:
        """Validates, writes the metrics and returns the first of them."""
        replicas = self.config.replicas
        scores = gather([validate(*self.evaluated(state, r)) for r in range(replicas)])
        for name, values in scores.items():
            if not np.isfinite(values).all():
                name = f"the validation's {name}"
                raise self.standing.not_finite(name, np.asarray(values), replicas)
        self.write("validation", scores)
        return mean(next(iter(scores.values())))

    def evaluated(self, state: TrainState, replica: int) -> tuple[Params, Extra]:
        """What is evaluated and drawn with, of one replica, on one device."""
        return self.parallel.local((evaluated_params(state), state.extra), replica)

    def write(self, split: str, values: Mapping[str, Values]) -> None:
        """Writes a line of metrics and shows it."""
        self.sink.write(self.standing.step, split, summarise(values))
        self.progress.metrics(self.standing.step, split, values)

    def save(self, state: TrainState) -> None:
        """Starts to write a checkpoint, unless a number in it is not finite."""
        host = self.parallel.host(state)
        for name, array in named(host).items():
            if not np.isfinite(array).all():
                name = f"a number in {name}"
                raise self.standing.not_finite(name, array, self.config.replicas)
        meta = {**self.standing.meta(), "identity": self.identity}
        self.checkpoints.save(self.standing.step, host, meta)
        self.standing.saved = self.standing.step

    def stop_early(self) -> Outcome:
        """Ends a run whose validation does not get better; its last state is saved already."""
        self.progress.say(_stopped_early(self.standing))
        return _outcome(self.standing, stopped_early=True)

    def leave(self, state: TrainState) -> Outcome:
        """Ends a run on SIGTERM."""
        if self.standing.saved != self.standing.step:
            self.save(state)
        self.checkpoints.wait()
        self.progress.say(
            f"SIGTERM: saved at step {self.standing.step} of {self.config.steps}; "
            "to go on, give the same command again."
        )
        return _outcome(self.standing, interrupted=True)


def _calls(start: int, config: TrainingConfig) -> list[tuple[int, int]]:
    """The calls `(start, stop)` that are left.

    They end at multiples of `steps_per_call`, so that a run that was stopped elsewhere comes back
    to the steps at which something is due.
    """
    unit = config.steps_per_call
    stops = [*range((start // unit + 1) * unit, config.steps, unit), config.steps]
    return list(zip([start, *stops], stops, strict=False))


def _due(step: int, config: TrainingConfig) -> bool:
    """Whether anything is to be done at `step` besides training."""
    cadences = (
        config.log_every,
        config.validate_every,
        config.sample_every,
        config.checkpoint_every,
    )
    return step == config.steps or any(every and step % every == 0 for every in cadences)


def _out_of_patience(standing: Standing, config: TrainingConfig) -> bool:
    """Whether early stopping ends the run."""
    return 0 < config.patience <= standing.stale


def _nothing_to_do(standing: Standing, config: TrainingConfig) -> Outcome:
    """Says why a run is at its end before it starts."""
    if standing.step >= config.steps:
        _say(
            f"step {standing.step} is done already and config.training.steps={config.steps}; "
            "raise it to train on."
        )
        return _outcome(standing)
    _say(f"{_stopped_early(standing)} Raise config.training.patience to train on.")
    return _outcome(standing, stopped_early=True)


def _stopped_early(standing: Standing) -> str:
    """The line that tells of early stopping."""
    best = standing.best or {}
    return (
        f"stopped early at step {standing.step}: {standing.stale} validations in a row were no "
        f"better than {best['score']:.6g} at step {best['step']}."
    )


def _outcome(
    standing: Standing, *, interrupted: bool = False, stopped_early: bool = False
) -> Outcome:
    """The outcome of a run that stands there."""
    best = standing.best or {"step": None, "score": None}
    return Outcome(standing.step, interrupted, stopped_early, best["step"], best["score"])


def _sink(workdir: pathlib.Path, step: int, logged: int) -> sinks.Sink:
    """The sinks of a run that goes on from `step`; the first process alone writes.

    Says so where lines are missing that had been written, up to the step `logged`.
    """
    if jax.process_index() != 0:
        return sinks.together([])
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--workdir={workdir} cannot be made: {error.strerror}.") from None
    lines = workdir / "metrics.jsonl"
    sinks.truncate_after(lines, step)
    lost = sinks.shortfall(lines, logged)
    if lost is not None:
        _say(f"warning: {lost}; the run goes on without them.")
    events = sinks.tensorboard(workdir / "tensorboard", step)
    return sinks.together([sinks.jsonl(lines), events])


def _say(line: str) -> None:
    """Prints a line, from the first process alone."""
    if jax.process_index() == 0:
        print(line, flush=True)
