"""Which run a folder holds: its config.json, and whether a training may begin or go on there."""

import contextlib
import pathlib
from collections.abc import Iterator

from rnngen_jax import experiment
from rnngen_jax.errors import UserError
from rnngen_jax.experiment import Experiment
from rnngen_jax.files import replacing
from rnngen_jax.training.checkpoints import open_checkpoints

CONFIG = "config.json"


@contextlib.contextmanager
def recorded(settings: Experiment, folder: pathlib.Path) -> Iterator[None]:
    """Writes config.json; takes that back if the training refuses to start."""
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


def settled(folder: pathlib.Path, given: Experiment) -> tuple[Experiment, bool]:
    """The resolved settings that a run begins or goes on with, and whether it begins.

    Reading checkpoints asks JAX for its processes, which have to have joined before.

    Args:
      folder: the run's.
      given: the settings that are asked for.

    Raises:
      UserError: the folder holds a run of another config, or checkpoints of another format.
    """
    begun = _begun(folder, given)
    with open_checkpoints(folder / "checkpoints") as checkpoints:
        meta = checkpoints.newest_meta()
    if meta is None:
        return experiment.resolve(given, begun), begun is None
    where = folder / "checkpoints" / str(meta["step"])
    kept = experiment.from_record(meta["config"], where)
    settings = experiment.resolve(given, begun or kept)
    _refuse_difference(where, kept, settings)
    return settings, False


def _begun(folder: pathlib.Path, given: Experiment) -> Experiment | None:
    """What config.json says of the run that has begun there; `None` without one.

    A config.json alone, of a run that ended before its first step, protects nothing.

    Raises:
      UserError: it is of a run that `given` cannot continue.
    """
    begun = (folder / "metrics.jsonl", folder / "checkpoints")
    if not (folder / CONFIG).exists() or not any(map(_holds_something, begun)):
        return None
    found = experiment.from_json(folder / CONFIG)
    _refuse_difference(folder, found, experiment.resolve(given, found))
    return found


def _refuse_difference(where: pathlib.Path, begun: Experiment, settings: Experiment) -> None:
    """Raises a `UserError` that names the fields by which `settings` cannot continue a run."""
    changed = experiment.difference(begun, settings)
    if changed:
        raise UserError(
            f"{where} holds a run of another config: {'; '.join(changed)}.\n"
            "Choose another --workdir, or give that run's config to go on with it."
        )


def _holds_something(path: pathlib.Path) -> bool:
    """Whether a file has content, or a folder an entry."""
    if path.is_dir():
        return any(path.iterdir())
    return path.exists() and path.stat().st_size > 0
