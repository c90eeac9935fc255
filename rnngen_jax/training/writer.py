"""Writes checkpoints through Orbax. Nothing here reads one; `stored.py` does."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from rnngen_jax.errors import RunError
from rnngen_jax.paths import Path
from rnngen_jax.training import stored
from rnngen_jax.training.quiet import silence_repeated_errors
from rnngen_jax.training.stored import Meta


class Writer:
    """Writes the checkpoints of one folder, and deletes those that are not to be kept."""

    def __init__(self, folder: Path, keep: int) -> None:
        """Makes no file yet.

        Args:
          folder: an absolute path, as Orbax requires.
          keep: how many of the newest checkpoints stay on disk, beside the best.
        """
        self._folder = folder
        self._best = _KeepStep()
        latest = checkpoint_managers.LatestN(keep)
        self._options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy([latest, self._best]),
            cleanup_tmp_directories=True,
        )
        self._manager: ocp.CheckpointManager | None = None

    def save(
        self, step: int, arrays: Mapping[str, np.ndarray], meta: Meta, best: int | None
    ) -> None:
        """Starts to write a checkpoint and returns; files get their names when complete.

        Args:
          step: the checkpoint's step; a checkpoint of the same step is replaced.
          arrays: by name; nothing else may write to them.
          meta: JSON values.
          best: step of the best checkpoint, which is kept.

        Raises:
          RunError: this checkpoint, or the one before, could not be written.
        """
        self._best.step = best
        # Orbax does not take arrays without elements; their shapes are in the meta.
        filled = {name: array for name, array in arrays.items() if array.size}
        items = ocp.args.Composite(state=ocp.args.PyTreeSave(filled), meta=ocp.args.JsonSave(meta))
        with _writing(self._folder):
            if self._manager is None:
                silence_repeated_errors()
                self._manager = ocp.CheckpointManager(self._folder, options=self._options)
            if (self._folder / str(step)).is_dir():
                self._manager.delete(step)
            saved = self._manager.save(step, args=items)
        if not saved:
            raise AssertionError(f"a checkpoint later than step {step} is in {self._folder}")

    def wait(self) -> None:
        """Waits for pending saves.

        Raises:
          RunError: a checkpoint could not be written.
        """
        if self._manager is not None:
            with _writing(self._folder):
                self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for pending saves and releases the folder.

        Raises:
          RunError: a checkpoint could not be written.
        """
        if self._manager is not None:
            manager, self._manager = self._manager, None
            with _writing(self._folder):
                manager.close()


class _KeepStep:
    """An Orbax preservation policy that keeps the checkpoint of one step, whatever its age.

    Orbax's own BestN would need the scores in a file of its own, beside the meta.
    """

    step: int | None = None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Which of the checkpoints to keep."""
        del context
        return [checkpoint.step == self.step for checkpoint in checkpoints]


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Raises a `RunError` for a checkpoint that cannot be written, such as to a full disk.

    Orbax and TensorStore raise errors of many types for it.
    """
    try:
        yield
    except Exception as error:
        raise RunError(
            f"a checkpoint could not be written to {folder}: {stored.reason(error)}. Those that "
            "are there are good; put this right and give the same command again."
        ) from error
