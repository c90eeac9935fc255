"""The training loop: calls to the device, and what happens between them."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from rnngen_jax import paths
from rnngen_jax.data.feed import Feed, fetch
from rnngen_jax.errors import RunError, UserError, refusal
from rnngen_jax.hosts.peers import ALONE, Peers
from rnngen_jax.models.base import Extra, Model, Params
from rnngen_jax.paths import Path
from rnngen_jax.training import cadence, opening, outcomes, sinks
from rnngen_jax.training.checkpoints import Checkpoints, open_checkpoints
from rnngen_jax.training.config import OptimizerConfig, TrainingConfig
from rnngen_jax.training.digests import named
from rnngen_jax.training.ledger import SILENT, Ledger
from rnngen_jax.training.outcomes import Outcome
from rnngen_jax.training.parallel import Parallel, make_parallel
from rnngen_jax.training.preemption import NEVER, Interruption, Stopped
from rnngen_jax.training.program import batches_per_step, initial_state, one_step
from rnngen_jax.training.progress import Progress, make_progress
from rnngen_jax.training.seeds import Values, gather, mean, summarise
from rnngen_jax.training.standing import Clock, Standing
from rnngen_jax.training.state import TrainState, evaluated_params
from rnngen_jax.training.step import Transform

Validate = Callable[[Params, Extra], Mapping[str, float]]
SampleGrid = Callable[[Params, Extra, int], np.ndarray | None]
Describe = Callable[[int], Mapping[str, float]]


def train(
    model: Model,
    feed: Feed,
    transform: Transform,
    config: TrainingConfig,
    optimizers: Mapping[str, OptimizerConfig],
    workdir: str | os.PathLike[str],
    identity: Mapping[str, Any],
    *,
    defaults: Mapping[str, Any] | None = None,
    validate: Validate | None = None,
    draw: SampleGrid | None = None,
    describe: Describe | None = None,
    record: Mapping[str, Any] | None = None,
    announced: Sequence[str] = (),
    ledger: Ledger = SILENT,
    devices: Sequence[jax.Device] | None = None,
    interruption: Interruption = NEVER,
    peers: Peers = ALONE,
) -> Outcome:
    """Trains a model, from the newest sound checkpoint in `workdir` if there is one.

    What falls due at a step is done in this order: the line of training metrics, the validation,
    the grid of samples, the checkpoint. So all that a checkpoint's step gives is on disk before
    the checkpoint, and a run that goes on from it drops later lines and writes them again. A
    checkpoint is also written whenever a validation is better than all before, and after the last
    step. After the last step there is a validation and a grid, too, unless they are turned off.

    When the run is asked to stop, the call under way is finished and its state saved. What falls
    due at that step is then owed, and done first when the run goes on.

    With `config.seeds` above 1, a metric is the mean over seeds and stands with its standard
    error and each seed's value; see `summarise`. The grids are the first seed's.

    Args:
      model: the model.
      feed: the training batches, of `config.batch_size` images for each of the `batches_per_step`,
        for `config.seeds`.
      transform: `transform(batch, key) -> batch`, inside the jitted step.
      config: the section `training`. Its `num_samples` is for whoever makes `draw`.
      optimizers: each player's section, such as `optimizer`.
      workdir: gets `metrics.jsonl`, `tensorboard/` and `checkpoints/`.
      identity: JSON values that say what the checkpoints belong to.
      defaults: of those values that older checkpoints lack, as for `digests.check_identity`.
      validate: `validate(params, extra) -> metrics`; the first metric decides which checkpoint is
        best, the lower the better, among those after `model.begins` steps. It is called for each
        seed. The arrays lie on one device and are gone after it returns.
      draw: `draw(params, extra, step)` writes a grid of samples; what it returns of it, uint8 RGB
        `[H, W, 3]`, goes to TensorBoard.
      describe: `describe(step) -> metrics` that the number of steps alone decides, such as the
        privacy that is left; they stand in the lines of training metrics.
      record: the run's whole config as nested JSON values, for each checkpoint's meta and
        TensorBoard.
      announced: lines to be said before the first step.
      ledger: who is told how far the run is, and what its time goes into.
      devices: the devices to use, all by default.
      interruption: who may ask the run to stop; over several processes, as `agreed` returns it.
        `validate` and `draw` may raise `Stopped` once it does.
      peers: the other processes.

    Returns:
      How it ended.

    Raises:
      UserError: settings that do not fit each other, the devices, or the checkpoints in `workdir`.
      DivergedError: a loss, a gradient, a parameter or a validation is not finite.
      RunError: an image cannot be read or a file written after the first step. The checkpoints
        there are stay good, as they do in a run that diverges.
    """
    if config.patience and validate is None:
        raise UserError(
            f"config.training.patience={config.patience} needs a validation, which this model has "
            "not; set it to 0."
        )
    images = config.seeds * config.batch_size * batches_per_step(optimizers)  # of a step
    parallel = make_parallel(
        config.parallelism,
        one_step(model, optimizers, config, transform),
        fetch,
        config.seed,
        config.batch_size,
        devices,
        config.seeds,
        config.micro_batches,
    )
    make_state = initial_state(model, optimizers, config)
    workdir = paths.of(workdir)
    with ExitStack() as stack:
        checkpoints = stack.enter_context(open_checkpoints(workdir / "checkpoints", config.keep))
        abstract = jax.eval_shape(make_state)
        found = checkpoints.resume(abstract, identity, _say, defaults)
        if found is None:
            state, standing = jax.jit(make_state)(), Standing()
        else:
            state, standing = found[0], Standing.of(found[1])
        peers.agree("its newest checkpoint at step", standing.saved)
        ended = standing.step >= config.steps or _out_of_patience(standing, config)
        if ended and not standing.owed:
            return outcomes.nothing_to_do(standing, config, _say)
        if found is not None:
            _say(f"going on from step {standing.step}.")
        for line in (
            *announced,
            opening.model(model.name, abstract.params, config.seeds),
            opening.devices(devices or jax.devices()),
        ):
            _say(line)
        # What was owed at a step is done anew, its lines included.
        kept = standing.step - standing.owed
        sink = stack.enter_context(closing(_sink(workdir, kept, standing.logged, record)))
        progress = stack.enter_context(closing(make_progress(standing.step, config.steps, images)))
        run = _Run(
            sections={player: optimizers[player].SECTION for player in model.losses},
            begins=model.begins,
            images=images,
            config=config,
            identity=identity,
            record=record,
            parallel=opening.compiling(parallel, progress),
            checkpoints=checkpoints,
            sink=sink,
            progress=progress,
            validate=validate,
            draw=draw,
            describe=describe,
            ledger=ledger,
            standing=standing,
            peers=peers,
        )
        start = standing.step
        ledger.report(start)
        saving = stack.enter_context(ExitStack())
        try:
            with peers.explained():
                outcome = run.go(state, feed, interruption, saving)
                run.wait()
        except (UserError, OSError) as error:
            if standing.step == start:
                raise
            # What stops a run that has begun is no refusal: what is on disk is kept.
            why = f"{refusal(error)}." if isinstance(error, OSError) else error
            raise RunError(f"step {standing.step}: {why}") from error
        return outcome


@dataclass
class _Run:
    """What the parts of the loop share."""

    sections: Mapping[str, str]
    begins: int
    images: int
    config: TrainingConfig
    identity: Mapping[str, Any]
    record: Mapping[str, Any] | None
    parallel: Parallel
    checkpoints: Checkpoints
    sink: sinks.Sink
    progress: Progress
    validate: Validate | None
    draw: SampleGrid | None
    describe: Describe | None
    ledger: Ledger
    standing: Standing
    peers: Peers
    clock: Clock = field(default_factory=Clock)

    def go(
        self, state: TrainState, feed: Feed, interruption: Interruption, saving: ExitStack
    ) -> Outcome:
        """Runs the calls to the end, or until it is asked to stop."""
        config, standing = self.config, self.standing
        state = self.parallel.place(state)
        resident = self.parallel.place_resident(feed.resident)
        calls = cadence.calls(standing.step, config)
        chunks = feed.chunks(calls, jax.process_index(), jax.process_count())
        unread, compiled = None, set()
        if standing.owed:
            if not self.between(state):
                return self.leave(state, interruption.asked())
            if _out_of_patience(standing, config):
                return self.stop_early()
        self.clock.start()
        for number, ((start, stop), chunk) in enumerate(zip(calls, chunks, strict=True)):
            placed = self.parallel.place_chunk(chunk)
            with self.clock.paused(), self.ledger.spending("compile"):
                call = self.parallel.compiled(state, resident, placed)
                if stop - start not in compiled:
                    # A CPU's collectives give up when another process compiles 30 s longer.
                    self.peers.agree("compiled steps of a call", stop - start)
                    compiled.add(stop - start)
            if number == 0:  # until now there was nothing to save
                saving.enter_context(interruption.deferred())
            self.peers.mark()
            state, metrics = call(state, resident, placed)
            if unread is not None:  # read only now, so that the device is never without work
                self.account(unread)
            unread = metrics
            stopping, due = interruption.asked(), cadence.due(stop, config)
            if stopping or due:
                self.account(unread)
                unread = None
            if stopping:
                standing.owed = due
                return self.leave(state, stopping)
            if due and not self.between(state):
                return self.leave(state, interruption.asked())
            if _out_of_patience(standing, config):
                return self.stop_early()
        return outcomes.outcome(standing)

    def account(self, metrics: Any) -> None:
        """Waits for the metrics of a call and adds them."""
        host = self.parallel.host(metrics)
        before = self.standing.step
        self.standing.account(host, self.sections)
        done = self.standing.step - before
        self.clock.count(done * self.images)
        self.progress.advance(done, mean(host[f"loss/{next(iter(self.sections))}"][-1]))

    def between(self, state: TrainState) -> bool:
        """Does what is due at this step, all of it or nothing that counts; see `train`.

        Returns:
          Whether it came to its end. If not, the standing is as before, and owes it.
        """
        before = self.standing.meta()
        try:
            self.do_due(state)
        except Stopped:
            self.standing.back_to(before)
            self.standing.owed = True
            return False
        return True

    def do_due(self, state: TrainState) -> None:
        """Does what is due at this step, in the order that `train` says."""
        config, standing = self.config, self.standing
        step, standing.owed = standing.step, False
        last = step >= config.steps

        def is_due(every: int) -> bool:
            return every > 0 and (last or step % every == 0)

        if is_due(config.log_every):
            known = {} if self.describe is None else self.describe(step)
            self.write("train", {**standing.means(), **known, **self.clock.metrics()})
            if step % config.log_every == 0:  # the last line may be a part of a full one
                standing.start_line()
            self.clock.start()
        with self.clock.paused():
            improved = False
            if self.validate is not None and is_due(config.validate_every):
                score = self.score(self.validate, state)
                improved = step > self.begins and standing.judge(score)
                last = last or _out_of_patience(standing, config)
            if self.draw is not None and is_due(config.sample_every):
                picture = self.draw(*self.evaluated(state, 0), step)
                if picture is not None:
                    self.sink.image(step, "samples", picture)
            if improved or last or is_due(config.checkpoint_every):
                self.save(state)

    def score(self, validate: Validate, state: TrainState) -> float:
        """Validates, writes the metrics and returns the first of them."""
        seeds = self.config.seeds
        scores = gather([validate(*self.evaluated(state, r)) for r in range(seeds)])
        for name, values in scores.items():
            if not np.isfinite(values).all():
                name = f"the validation's {name}"
                raise self.standing.not_finite(name, np.asarray(values), seeds, self.sections)
        self.write("validation", scores)
        return mean(next(iter(scores.values())))

    def evaluated(self, state: TrainState, seed_index: int) -> tuple[Params, Extra]:
        """What is evaluated and drawn with, of one seed, on one device."""
        return self.parallel.local((evaluated_params(state), state.extra), seed_index)

    def write(self, split: str, values: Mapping[str, Values]) -> None:
        """Writes a line of metrics and shows it."""
        self.sink.write(self.standing.step, split, summarise(values, self.config.seed))
        self.ledger.report(self.standing.step)
        self.progress.metrics(self.standing.step, split, values)

    def save(self, state: TrainState) -> None:
        """Starts to write a checkpoint, unless a number in it is not finite.

        It takes the place of one of the same step, which owed what has been done by now.
        """
        with self.ledger.spending("save"):
            self._save(state)
        self.ledger.saved(self.standing.step)

    def _save(self, state: TrainState) -> None:
        host = self.parallel.host(state)
        for name, array in named(host).items():
            if not np.isfinite(array).all():
                name = f"a number in {name}"
                raise self.standing.not_finite(name, array, self.config.seeds, self.sections)
        self.sink.flush()  # so that all that falls due at this step is there before its checkpoint
        self.peers.mark()
        meta = {**self.standing.meta(), "identity": self.identity, "config": self.record}
        self.checkpoints.save(self.standing.step, host, meta)
        self.standing.saved = self.standing.step

    def wait(self) -> None:
        """Waits for the checkpoint that is being written."""
        with self.ledger.spending("save"):
            self.checkpoints.wait()

    def stop_early(self) -> Outcome:
        """Ends a run whose validation does not get better; its last state is saved already."""
        self.progress.say(outcomes.stopped_early(self.standing))
        return outcomes.outcome(self.standing, "stopped_early")

    def leave(self, state: TrainState, asked: str | None) -> Outcome:
        """Ends a run that is asked to stop."""
        if self.standing.saved != self.standing.step:
            self.save(state)
        self.wait()
        self.progress.say(
            f"{asked}: saved at step {self.standing.step} of {self.config.steps}; "
            "to go on, give the same command again."
        )
        return outcomes.outcome(self.standing, "preempted" if asked == "SIGTERM" else "interrupted")


def _out_of_patience(standing: Standing, config: TrainingConfig) -> bool:
    """Whether early stopping ends the run."""
    return 0 < config.patience <= standing.stale


def _sink(workdir: Path, step: int, logged: int, record: Mapping[str, Any] | None) -> sinks.Sink:
    """The sinks of a run that goes on from `step`; the first process alone writes.

    Says so where lines are missing that had been written, up to the step `logged`.
    """
    if jax.process_index() != 0:
        return sinks.together([])
    if not paths.is_remote(workdir):
        try:
            workdir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--workdir={workdir} cannot be made: {error.strerror}.") from None
    lines = workdir / "metrics.jsonl"
    sinks.truncate_after(lines, step)
    lost = sinks.shortfall(lines, logged)
    if lost is not None:
        _say(f"warning: {lost}; the run goes on without them.")
    events = sinks.tensorboard(workdir / "tensorboard", step, named(record or {}))
    return sinks.together([sinks.jsonl(lines), events])


def _say(line: str) -> None:
    """Prints a line, from the first process alone."""
    if jax.process_index() == 0:
        print(line, flush=True)
