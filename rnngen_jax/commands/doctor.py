"""Check this machine, the data, and the health of a run's checkpoints.

  rnngen doctor
  rnngen doctor --config=pixel_rnn
  rnngen doctor --workdir=runs/digits

Prints versions, devices, memory and the data sets found; with --config what its data is, with
--workdir whether each checkpoint can be restored. The exit code is 1 if something is unsound.
"""

import os
import pathlib
from typing import Any

from rnngen_jax.commands.base import CONFIG, WORKDIR
from rnngen_jax.errors import UserError

FLAGS = (
    CONFIG._replace(help="a config whose data is opened"),
    WORKDIR._replace(help="a run whose checkpoints are checked", required=False),
)

PACKAGES = (
    "absl-py",
    "array_record",
    "flax",
    "grain",
    "jax",
    "jaxlib",
    "ml_collections",
    "numpy",
    "optax",
    "orbax-checkpoint",
    "pillow",
    "tensorboardX",
    "tensorflow-datasets",
)


def run(config: Any, workdir: str | None) -> int:
    """Examines.

    Args:
      config: the `ConfigDict` of --config, or `None`.
      workdir: a run's folder, or `None`.

    Returns:
      0, or 1 if something is unsound.

    Raises:
      UserError: --config or --workdir does not fit.
    """
    from rnngen_jax import experiment

    settings = None if config is None else experiment.check(config)
    if workdir:
        experiment.from_json(pathlib.Path(workdir) / "config.json")
    sound = [_versions(), _machine(), _data(settings)]
    if workdir:
        sound.append(_checkpoints(pathlib.Path(workdir)))
    print("all sound" if all(sound) else "unsound: see the lines that begin with !")
    return 0 if all(sound) else 1


def _versions() -> bool:
    """Prints versions; whether all packages are there."""
    import platform
    from importlib import metadata

    from rnngen_jax import __version__

    print(f"rnngen_jax {__version__}, Python {platform.python_version()}, {platform.platform()}")
    missing = []
    for name in PACKAGES:
        try:
            print(f"  {name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    for name in missing:
        print(f"! {name} is not installed")
    return not missing


def _machine() -> bool:
    """Prints devices and memory; whether a device computes."""
    import jax
    import jax.numpy as jnp

    print(f"host: {os.cpu_count()} cores, {_host_memory()}")
    for device in jax.local_devices():
        statistics = device.memory_stats() or {}
        limit, used = statistics.get("bytes_limit"), statistics.get("bytes_in_use", 0)
        memory = f", {_gib(limit)}, {_gib(used)} in use" if limit else ", memory of the host"
        print(f"device {device.id}: {device.device_kind} ({device.platform}){memory}")
    computed = float(jnp.arange(4.0).sum())
    if computed != 6.0:
        print(f"! the default device computes 0 + 1 + 2 + 3 = {computed}")
    return computed == 6.0


def _host_memory() -> str:
    """The host's memory in words."""
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page
    except (AttributeError, OSError, ValueError):  # not every system tells
        return "memory unknown"
    return f"{_gib(total)} memory, {_gib(free)} free"


def _data(settings: Any) -> bool:
    """Prints the data sets found; whether those that should be there can be opened."""
    from rnngen_jax.data import tfds
    from rnngen_jax.data.base import DataConfig

    sound = _open(DataConfig())
    root = tfds.data_dir()
    names = [f"tfds:{name}" for name in tfds.prepared(root)]
    print(f"prepared in {root}: {', '.join(names) or 'none'}")
    return sound if settings is None else _open(settings.data) and sound


def _open(config: Any) -> bool:
    """Prints what a data set is; whether it can be opened."""
    import numpy as np

    from rnngen_jax import data

    try:
        dataset = data.load(config)
        for split in dataset.splits.values():
            split.read(np.array([0, split.num - 1]))
    except UserError as error:
        print(f"! data {config.name}: {error}")
        return False
    spec = dataset.spec
    sizes = ", ".join(f"{split.num} {name}" for name, split in dataset.splits.items())
    print(
        f"data {config.name}: {spec.height}x{spec.width}x{spec.channels}, {spec.levels} levels, "
        f"{spec.classes} classes; {sizes}"
    )
    return True


def _checkpoints(workdir: pathlib.Path) -> bool:
    """Prints the health of a run's checkpoints; whether there are some and all are sound."""
    from rnngen_jax.training.checkpoints import open_checkpoints

    with open_checkpoints(workdir / "checkpoints") as checkpoints:
        found = checkpoints.health()
    if not found:
        print(f"! {workdir} has no checkpoint")
    for one in found:
        print(
            f"checkpoint {one.step}: sound" if one.ok else f"! checkpoint {one.step}: {one.reason}"
        )
    return bool(found) and all(one.ok for one in found)


def _gib(size: int) -> str:
    """Bytes in GiB, for people."""
    return f"{size / 2**30:.1f} GiB"
