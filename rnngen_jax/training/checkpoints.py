"""Checkpoints: written whole, read with care. Orbax is known here and in `stored.py` alone.

A checkpoint is a folder `WORKDIR/checkpoints/STEP` with two items. `state` holds the arrays of the
train state as NumPy arrays by name, such as "params.model.kernel", so that it can be read on any
number of devices. `meta` is JSON: the step, what the checkpoint belongs to, the run's whole config,
where the metrics and the validation stand, library versions, and of each array its dtype, shape and
SHA-256 digest; a digest over all of that stands beside it. Restoring checks every digest of what it
reads.

The newest checkpoints and the best are kept. Whether a checkpoint is the best is written in the
meta of all later ones: `best` names its step and score.
"""

import contextlib
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from rnngen_jax.errors import RunError, UserError
from rnngen_jax.models.base import Extra, Model, Params
from rnngen_jax.training import stored
from rnngen_jax.training.digests import check_identity, describe, digest, named, versions
from rnngen_jax.training.quiet import silence_repeated_errors
from rnngen_jax.training.seeds import with_axis
from rnngen_jax.training.state import TrainState
from rnngen_jax.training.stored import DamagedError, Meta, UnreadableError


class Health(NamedTuple):
    """What is known of one checkpoint: `reason` says what is wrong where `ok` is false."""

    step: int
    ok: bool
    reason: str


class Evaluated(NamedTuple):
    """What evaluating and sampling need of a checkpoint, as NumPy arrays.

    `params` is the moving average where the run keeps one. With several seeds all arrays have a
    leading axis of them.
    """

    step: int
    params: Params
    extra: Extra
    meta: Meta


class Checkpoints:
    """The checkpoints of one run; made by `open_checkpoints`.

    As a context manager it waits at its end for the saves that are under way.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int | None) -> None:
        """See `open_checkpoints`."""
        # Orbax takes absolute paths alone.
        self._folder = pathlib.Path(folder).absolute()
        self._keep = keep
        self._manager: ocp.CheckpointManager | None = None
        self._policy = _KeepStep()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Waits for the saves under way and releases the folder.

        Raises:
          RunError: a save could not be written.
        """
        if self._manager is not None:
            manager, self._manager = self._manager, None
            with _writing(self._folder):
                manager.close()

    def wait(self) -> None:
        """Waits for the saves under way.

        Raises:
          RunError: one could not be written.
        """
        if self._manager is not None:
            with _writing(self._folder):
                self._manager.wait_until_finished()

    def steps(self) -> list[int]:
        """Steps that have a folder, sound or not, in ascending order."""
        if not self._folder.is_dir():
            return []
        return sorted(int(p.name) for p in self._folder.iterdir() if p.is_dir() and _is_step(p))

    def save(self, step: int, state: TrainState, meta: Meta) -> None:
        """Starts to write a checkpoint and returns; files get their names when they are whole.

        One of the same step is deleted first: it was written before what falls due at that step.

        Args:
          step: number of steps done.
          state: the state as NumPy arrays that nobody writes to.
          meta: JSON values; `identity` and `best` are read back here: `best` is `None` or
            `{"step", "score"}`, and the checkpoint of that step is kept.

        Raises:
          RunError: this checkpoint, or the one before, could not be written.
        """
        arrays = named(state)
        meta = {
            **meta,
            "format": stored.FORMAT,
            "step": step,
            "versions": versions(),
            "arrays": {name: describe(array) for name, array in arrays.items()},
        }
        meta = {**meta, "digest": digest(meta)}
        best = meta.get("best")
        self._policy.step = best["step"] if best else None
        # Orbax does not take arrays without elements; their shapes are in the meta.
        filled = {name: array for name, array in arrays.items() if array.size}
        items = ocp.args.Composite(state=ocp.args.PyTreeSave(filled), meta=ocp.args.JsonSave(meta))
        with _writing(self._folder):
            if step in self.steps():
                self._writer().delete(step)
            saved = self._writer().save(step, args=items)
        if not saved:
            raise AssertionError(f"step {step} is not after the checkpoints {self.steps()}")

    def resume(
        self,
        abstract: TrainState,
        identity: Mapping[str, Any],
        warn: Callable[[str], None],
    ) -> tuple[TrainState, Meta] | None:
        """Restores the newest sound checkpoint, for a run to go on from.

        Damaged ones that are newer are moved aside, to `STEP.damaged`, since the run comes to
        their steps again. Nothing is moved where one cannot be read, which may be sound.

        Args:
          abstract: the state's shapes and dtypes.
          identity: what the checkpoint has to belong to.
          warn: takes a line for each damaged checkpoint.

        Returns:
          The state as NumPy arrays and the meta, or `None` where there is no checkpoint.

        Raises:
          UserError: the newest sound checkpoint belongs to another model or another optimiser, or
            none of them is sound; nothing is moved then.
          UnreadableError: the newest one that is not damaged cannot be read.
        """
        damaged = []
        found = None
        for step in reversed(self.steps()):
            try:
                found = self._restore(step, abstract, identity)
                break
            except DamagedError as error:
                damaged.append((step, error))
        if damaged and found is None:
            step, error = damaged[0]
            raise UserError(
                f"no checkpoint in {self._folder} is sound; the newest, {step}, is damaged "
                f"({error}). Give another --workdir, or move that folder away to begin anew."
            )
        for step, error in damaged:
            if jax.process_index() == 0:
                aside = _free_name(self._folder / f"{step}.damaged")
                self._at(step).rename(aside)
                warn(f"checkpoint {step} is damaged ({error}); moved to {aside}, going back.")
        return found

    def restore(
        self, which: str | int, abstract: TrainState, identity: Mapping[str, Any]
    ) -> tuple[TrainState, Meta]:
        """Restores one checkpoint.

        Args:
          which: "best", "latest" or a step.
          abstract: the state's shapes and dtypes.
          identity: what the checkpoint has to belong to.

        Returns:
          The state as NumPy arrays and the meta.

        Raises:
          UserError: there is none, it is damaged, or it belongs to another model or optimiser.
          UnreadableError: it cannot be read.
        """
        step = self.find(which)
        try:
            return self._restore(step, abstract, identity)
        except DamagedError as error:
            raise self._unusable(step, error) from None

    def restore_evaluated(
        self, which: str | int, model: Model, identity: Mapping[str, Any], seeds: int = 1
    ) -> Evaluated:
        """Restores what evaluating and sampling need; no optimiser has to be known.

        Args:
          which: "best", "latest" or a step.
          model: the model.
          identity: what the checkpoint has to belong to.
          seeds: how many the run has.

        Raises:
          UserError: there is none, it is damaged, or it belongs to another model.
          UnreadableError: it cannot be read.
        """
        step = self.find(which)
        try:
            meta = stored.meta(self._at(step))
            check_identity(meta, identity, self._at(step))
            one = jax.eval_shape(model.init, jax.random.key(0))
            params, extra = with_axis(one, seeds)
            averaged = any(name.startswith("ema.") for name in meta["arrays"])
            abstract = {"ema" if averaged else "params": params, "extra": extra}
            tree = stored.tree(self._at(step), meta, abstract)
        except DamagedError as error:
            raise self._unusable(step, error) from None
        return Evaluated(step, tree["ema" if averaged else "params"], tree["extra"], meta)

    def find(self, which: str | int) -> int:
        """The step that "best", "latest" or a step names.

        Raises:
          UserError: there is no such checkpoint.
        """
        steps = self.steps()
        if not steps:
            raise UserError(f"{self._folder} holds no checkpoint; run train first.")
        if which == "latest":
            return steps[-1]
        if which == "best":
            return self._best(steps)
        allowed = f"allowed: best, latest, {', '.join(map(str, steps))}"
        if str(which) not in map(str, steps):
            raise UserError(f"there is no checkpoint {which!r} in {self._folder}; {allowed}.")
        return int(which)

    def meta(self, which: str | int) -> Meta:
        """The meta of one checkpoint.

        Args:
          which: "best", "latest" or a step.

        Raises:
          UserError: there is none, or it is damaged.
          UnreadableError: it cannot be read.
        """
        step = self.find(which)
        try:
            return stored.meta(self._at(step))
        except DamagedError as error:
            raise self._unusable(step, error) from None

    def default(self) -> str:
        """What verbs take without --checkpoint: "best", or "latest" before any validation."""
        return "best" if self.has_best() else "latest"

    def has_best(self) -> bool:
        """Whether the run has a best checkpoint by now; false before its first validation."""
        newest = self.newest_meta()
        return newest is not None and newest["best"] is not None

    def newest_meta(self) -> Meta | None:
        """The meta of the newest checkpoint whose meta can be read, `None` where there is none."""
        for step in reversed(self.steps()):
            try:
                return stored.meta(self._at(step))
            except DamagedError:
                continue
        return None

    def health(self) -> list[Health]:
        """Reads every checkpoint and checks all digests; changes nothing."""
        found = []
        for step in self.steps():
            try:
                meta = stored.meta(self._at(step))
                template = {
                    name: jax.ShapeDtypeStruct(tuple(entry["shape"]), np.dtype(entry["dtype"]))
                    for name, entry in meta["arrays"].items()
                }
                stored.arrays(self._at(step), meta, template)
                found.append(Health(step, True, ""))
            except (DamagedError, UnreadableError, UserError) as error:
                found.append(Health(step, False, str(error)))
        return found

    def _best(self, steps: Sequence[int]) -> int:
        """The best step by validation, as the newest readable checkpoint knows it."""
        newest = self.newest_meta()
        best = None if newest is None else newest["best"]
        if best is None:
            raise UserError(
                f"{self._folder} has no best checkpoint, since nothing has been validated; "
                "give --checkpoint=latest, or train with config.training.validate_every above 0."
            )
        if best["step"] not in steps:
            raise UserError(
                f"the best checkpoint, {best['step']}, is missing from {self._folder}; "
                f"give --checkpoint=latest or one of {', '.join(map(str, steps))}."
            )
        return best["step"]

    def _restore(
        self, step: int, abstract: TrainState, identity: Mapping[str, Any]
    ) -> tuple[TrainState, Meta]:
        """Restores a whole state."""
        meta = stored.meta(self._at(step))
        check_identity(meta, identity, self._at(step))
        wanted = set(named(abstract))
        if wanted != set(meta["arrays"]):
            odd = sorted(wanted ^ set(meta["arrays"]))
            raise UserError(
                f"{self._at(step)} is of a run with another optimizer or ema_decay: it "
                f"{'lacks' if odd[0] in wanted else 'also has'} {odd[0]}. "
                "Keep those settings, or give another --workdir."
            )
        return stored.tree(self._at(step), meta, abstract), meta

    def _at(self, step: int) -> pathlib.Path:
        return self._folder / str(step)

    def _unusable(self, step: int, error: DamagedError) -> UserError:
        """The error for a damaged checkpoint that was asked for."""
        others = [str(other) for other in self.steps() if other != step]
        advice = f"give --checkpoint={' or '.join(others)}" if others else "train again"
        return UserError(f"checkpoint {self._at(step)} is damaged ({error}); {advice}.")

    def _writer(self) -> ocp.CheckpointManager:
        """Orbax's manager, opened with the first save, so that reading never makes a file."""
        if self._manager is None:
            if self._keep is None:
                raise AssertionError("opened for reading")
            silence_repeated_errors()
            self._manager = ocp.CheckpointManager(
                self._folder,
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=checkpoint_managers.AnyPreservationPolicy(
                        [checkpoint_managers.LatestN(self._keep), self._policy]
                    ),
                    cleanup_tmp_directories=True,
                ),
            )
        return self._manager


class _KeepStep:
    """Keeps the checkpoint of one step, whatever its age: an Orbax preservation policy.

    Orbax's own BestN would need the scores in a file of Orbax's besides the meta.
    """

    step: int | None = None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Which of the checkpoints stay."""
        del context
        return [checkpoint.step == self.step for checkpoint in checkpoints]


def open_checkpoints(folder: str | os.PathLike[str], keep: int | None = None) -> Checkpoints:
    """Opens the checkpoints in a folder, which need not exist.

    Args:
      folder: usually `WORKDIR/checkpoints`.
      keep: how many of the newest stay on disk, besides the best; `None` to read only, which
        changes nothing on disk.

    Raises:
      UserError: a file is in the folder's place.
    """
    if pathlib.Path(folder).exists() and not pathlib.Path(folder).is_dir():
        raise UserError(f"{folder} is a file; checkpoints need a folder there: move it away.")
    return Checkpoints(folder, keep)


@contextlib.contextmanager
def _writing(folder: pathlib.Path) -> Iterator[None]:
    """Tells of a checkpoint that could not be written, such as on a full disk.

    Orbax and TensorStore raise errors of many kinds for it.
    """
    try:
        yield
    except Exception as error:
        raise RunError(
            f"a checkpoint could not be written to {folder}: {stored.reason(error)}. Those that "
            "are there are good; put this right and give the same command again."
        ) from error


def _is_step(path: pathlib.Path) -> bool:
    """Whether a folder's name is a step; Orbax's unfinished ones and ours set aside are not."""
    return re.fullmatch("0|[1-9][0-9]*", path.name) is not None


def _free_name(path: pathlib.Path) -> pathlib.Path:
    """`path`, or the first of `path.1`, `path.2`, ... that is not taken."""
    tried, count = path, 0
    while tried.exists():
        count += 1
        tried = path.with_name(f"{path.name}.{count}")
    return tried
