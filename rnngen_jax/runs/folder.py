"""A run's folder: its config.json, and whether training may start or continue there."""

import contextlib
from collections.abc import Iterator

from rnngen_jax import continuing, experiment, paths
from rnngen_jax.errors import UserError
from rnngen_jax.experiment import Experiment
from rnngen_jax.files import replacing
from rnngen_jax.paths import Path
from rnngen_jax.training.checkpoints import open_checkpoints

CONFIG = "config.json"


@contextlib.contextmanager
def recorded(settings: Experiment, folder: Path) -> Iterator[None]:
    """Writes config.json; restores the previous one if training refuses to start."""
    path = folder / CONFIG
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


def settled(folder: Path, given: Experiment) -> tuple[Experiment, bool]:
    """The resolved settings to start or continue a run with, and whether the run is new.

    Reading checkpoints requires that JAX's processes have joined before.

    Args:
      folder: the run's folder.
      given: the requested settings.

    Raises:
      UserError: the folder holds a run of another config, or checkpoints of another format.
    """
    begun = _begun(folder, given)
    with open_checkpoints(folder / "checkpoints") as checkpoints:
        meta = checkpoints.newest_meta()
    if meta is None:
        return continuing.resolve(given, begun), begun is None
    where = folder / "checkpoints" / str(meta["step"])
    kept = experiment.from_record(meta["config"], where)
    settings = continuing.resolve(given, begun or kept)
    _refuse_difference(where, kept, settings)
    return settings, False


def _begun(folder: Path, given: Experiment) -> Experiment | None:
    """The settings of the run in a folder from its config.json; `None` if there is no run.

    A config.json alone, of a run that ended before its first step, does not count.

    Raises:
      UserError: `given` cannot continue the run.
    """
    begun = (folder / "metrics.jsonl", folder / "checkpoints")
    if not (folder / CONFIG).exists() or not any(map(_holds_something, begun)):
        return None
    found = experiment.from_json(folder / CONFIG)
    _refuse_difference(folder, found, continuing.resolve(given, found))
    return found


def _refuse_difference(where: Path, begun: Experiment, settings: Experiment) -> None:
    """Raises a `UserError` that names the fields that prevent `settings` from continuing a run."""
    changed = continuing.difference(begun, settings)
    if changed:
        raise UserError(
            f"{where} holds a run of another config: {'; '.join(changed)}.\n"
            "Choose another --workdir, or give that run's config to continue it."
        )


def _holds_something(path: Path) -> bool:
    """Whether a file has content, or a folder an entry."""
    if path.is_dir():
        return any(path.iterdir())
    return path.exists() and paths.size(path) > 0
