"""A run's checkpoints: saved whole, verified when read. Only `stored.py` and `writer.py` use Orbax.

A checkpoint is a folder `WORKDIR/checkpoints/STEP` with two items. `state` holds the arrays of the
train state as NumPy arrays by name, such as "params.model.kernel", so that it can be read on any
number of devices. `meta` is JSON: the step, what the checkpoint belongs to, the run's whole config,
the progress of metrics and validation, library versions, each array's dtype, shape and SHA-256
digest, and a digest of all that. Restoring checks the digests of everything that it reads.

The newest checkpoints and the best are kept. The best is recorded in the meta of all later
checkpoints: `best` has its step and score.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import jax
import numpy as np

from rnngen_jax import paths
from rnngen_jax.errors import UserError
from rnngen_jax.files import move
from rnngen_jax.models.base import Extra, Model, Params
from rnngen_jax.paths import Path
from rnngen_jax.training import stored
from rnngen_jax.training.digests import check_identity, describe, digest, named, versions
from rnngen_jax.training.seeds import with_axis
from rnngen_jax.training.state import TrainState
from rnngen_jax.training.stored import DamagedError, Meta, UnreadableError
from rnngen_jax.training.writer import Writer


class Health(NamedTuple):
    """Whether one checkpoint is intact; `reason` says what is wrong if not."""

    step: int
    ok: bool
    reason: str


class Evaluated(NamedTuple):
    """The part of a checkpoint that evaluating and sampling need, as NumPy arrays.

    `params` is the moving average if the run keeps one. With several seeds all arrays have a
    leading axis over seeds.
    """

    step: int
    params: Params
    extra: Extra
    meta: Meta


class Checkpoints:
    """The checkpoints of one run; made by `open_checkpoints`.

    As a context manager it waits for pending saves at its end.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int | None) -> None:
        """See `open_checkpoints`."""
        self._folder = paths.absolute(paths.of(folder))
        self._writer = None if keep is None else Writer(self._folder, keep)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Waits for pending saves and releases the folder.

        Raises:
          RunError: a checkpoint could not be written.
        """
        if self._writer is not None:
            self._writer.close()

    def wait(self) -> None:
        """Waits for pending saves.

        Raises:
          RunError: a checkpoint could not be written.
        """
        if self._writer is not None:
            self._writer.wait()

    def steps(self) -> list[int]:
        """Steps that have a folder, intact or not, in ascending order."""
        if not self._folder.is_dir():
            return []
        return sorted(int(p.name) for p in self._folder.iterdir() if _is_step(p))

    def save(self, step: int, state: TrainState, meta: Meta) -> None:
        """Starts to write a checkpoint and returns; files get their names when complete.

        A checkpoint of the same step is replaced: it was written before the work due at that step.

        Args:
          step: number of steps done.
          state: the state as NumPy arrays; nothing else may write to them.
          meta: JSON values, with `identity` and `best`: `None`, or the `{"step", "score"}` of the
            best checkpoint, which is kept.

        Raises:
          RunError: this checkpoint, or the one before, could not be written.
        """
        if self._writer is None:
            raise AssertionError("opened for reading")
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
        self._writer.save(step, arrays, meta, best["step"] if best else None)

    def resume(
        self,
        abstract: TrainState,
        identity: Mapping[str, Any],
        warn: Callable[[str], None],
        defaults: Mapping[str, Any] | None = None,
    ) -> tuple[TrainState, Meta] | None:
        """Restores the newest intact checkpoint, for a run to resume from.

        Newer ones that are damaged are moved to `STEP.damaged`, as the run will reach their steps
        again. An unreadable one may be intact, so nothing is moved then.

        Args:
          abstract: the state's shapes and dtypes.
          identity: what the checkpoint must belong to.
          warn: called with a line for each damaged checkpoint.
          defaults: of `identity`, as for `check_identity`.

        Returns:
          The state as NumPy arrays and the meta, or `None` if there is no checkpoint.

        Raises:
          UserError: the newest intact checkpoint belongs to another model or another optimiser, or
            none is intact; nothing is moved then.
          UnreadableError: the newest one that is not damaged cannot be read.
        """
        damaged = []
        found = None
        for step in reversed(self.steps()):
            try:
                found = self._restore(step, abstract, identity, defaults)
                break
            except DamagedError as error:
                damaged.append((step, error))
        if damaged and found is None:
            step, error = damaged[0]
            raise UserError(
                f"no checkpoint in {self._folder} is intact; the newest, {step}, is damaged "
                f"({error}). Give another --workdir, or move that folder away to start over."
            )
        for step, error in damaged:
            if jax.process_index() == 0:
                aside = _free_name(self._folder / f"{step}.damaged")
                move(self._at(step), aside)
                warn(f"checkpoint {step} is damaged ({error}); moved to {aside}, going back.")
        return found

    def restore(
        self,
        which: str | int,
        abstract: TrainState,
        identity: Mapping[str, Any],
        defaults: Mapping[str, Any] | None = None,
    ) -> tuple[TrainState, Meta]:
        """Restores one checkpoint.

        Args:
          which: "best", "latest" or a step.
          abstract: the state's shapes and dtypes.
          identity: what the checkpoint must belong to.
          defaults: of `identity`, as for `check_identity`.

        Returns:
          The state as NumPy arrays and the meta.

        Raises:
          UserError: it is missing, damaged, or belongs to another model or optimiser.
          UnreadableError: it cannot be read.
        """
        step = self.find(which)
        try:
            return self._restore(step, abstract, identity, defaults)
        except DamagedError as error:
            raise self._unusable(step, error) from None

    def restore_evaluated(
        self,
        which: str | int,
        model: Model,
        identity: Mapping[str, Any],
        seeds: int = 1,
        defaults: Mapping[str, Any] | None = None,
    ) -> Evaluated:
        """Restores the part that evaluating and sampling need, whatever the optimiser was.

        Args:
          which: "best", "latest" or a step.
          model: the model.
          identity: what the checkpoint must belong to.
          seeds: number of seeds of the run.
          defaults: of `identity`, as for `check_identity`.

        Raises:
          UserError: it is missing, damaged, or belongs to another model.
          UnreadableError: it cannot be read.
        """
        step = self.find(which)
        try:
            meta = stored.meta(self._at(step))
            check_identity(meta, identity, self._at(step), defaults)
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
        known = [str(step) for step in steps]
        if str(which) not in known:
            raise UserError(
                f"there is no checkpoint {which!r} in {self._folder}; "
                f"allowed: best, latest, {', '.join(known)}."
            )
        return int(which)

    def meta(self, which: str | int) -> Meta:
        """The meta of one checkpoint.

        Args:
          which: "best", "latest" or a step.

        Raises:
          UserError: it is missing or damaged.
          UnreadableError: it cannot be read.
        """
        step = self.find(which)
        try:
            return stored.meta(self._at(step))
        except DamagedError as error:
            raise self._unusable(step, error) from None

    def default(self) -> str:
        """The default of --checkpoint: "best", or "latest" before any validation."""
        return "best" if self.has_best() else "latest"

    def has_best(self) -> bool:
        """Whether the run has a best checkpoint yet; false before its first validation."""
        newest = self.newest_meta()
        return newest is not None and newest["best"] is not None

    def newest_meta(self) -> Meta | None:
        """The meta of the newest checkpoint whose meta is intact; `None` if there is none."""
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
        """The best step by validation, from the newest meta that is intact."""
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
        self,
        step: int,
        abstract: TrainState,
        identity: Mapping[str, Any],
        defaults: Mapping[str, Any] | None,
    ) -> tuple[TrainState, Meta]:
        """Restores a whole state."""
        meta = stored.meta(self._at(step))
        check_identity(meta, identity, self._at(step), defaults)
        wanted = set(named(abstract))
        if wanted != set(meta["arrays"]):
            odd = sorted(wanted ^ set(meta["arrays"]))
            raise UserError(
                f"{self._at(step)} is of a run with another optimizer or ema_decay: it "
                f"{'lacks' if odd[0] in wanted else 'also has'} {odd[0]}. "
                "Keep those settings, or give another --workdir."
            )
        return stored.tree(self._at(step), meta, abstract), meta

    def _at(self, step: int) -> Path:
        return self._folder / str(step)

    def _unusable(self, step: int, error: DamagedError) -> UserError:
        """The error for a damaged checkpoint that was asked for."""
        others = [str(other) for other in self.steps() if other != step]
        advice = f"give --checkpoint={' or '.join(others)}" if others else "train again"
        return UserError(f"checkpoint {self._at(step)} is damaged ({error}); {advice}.")


def open_checkpoints(folder: str | os.PathLike[str], keep: int | None = None) -> Checkpoints:
    """Opens the checkpoints in a folder, which need not exist.

    Args:
      folder: usually `WORKDIR/checkpoints`.
      keep: how many of the newest stay on disk, beside the best; `None` to only read, which
        changes nothing on disk.

    Raises:
      UserError: the path is a file.
    """
    folder = paths.of(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; checkpoints need a folder there: move it away.")
    return Checkpoints(folder, keep)


def _is_step(path: Path) -> bool:
    """Whether a checkpoint is whole; unfinished and damaged ones have other names.

    In a bucket unfinished ones have the same name, but lack Orbax's mark.
    """
    if re.fullmatch("0|[1-9][0-9]*", path.name) is None:
        return False
    return stored.is_committed(path) if paths.is_remote(path) else path.is_dir()


def _free_name(path: Path) -> Path:
    """`path`, or the first of `path.1`, `path.2`, ... that does not exist."""
    tried, count = path, 0
    while tried.exists():
        count += 1
        tried = path.with_name(f"{path.name}.{count}")
    return tried
