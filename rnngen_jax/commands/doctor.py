"""Check this machine, the data, and whether a run can be opened and resumed.

  rnngen doctor
  rnngen doctor --config=pixel_rnn
  rnngen doctor --workdir=runs/digits

Prints versions, devices, memory and the data sets found; with --config also that config's data.
With --workdir it tries what other verbs do with the run: read its config, open its data, build its
model, restore each checkpoint, resume from the newest, and read its metrics. Nothing is changed.
The exit code is 1 if a check fails; the lines of failed checks begin with !.
"""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from rnngen_jax import paths
from rnngen_jax.commands.flags import CONFIG, WORKDIR
from rnngen_jax.errors import RunError, UserError, refusal
from rnngen_jax.paths import Path

if TYPE_CHECKING:
    from rnngen_jax.data.base import DataConfig, Dataset
    from rnngen_jax.experiment import Experiment
    from rnngen_jax.models.base import Model
    from rnngen_jax.shapes import ImageSpec
    from rnngen_jax.training.checkpoints import Checkpoints

Found = TypeVar("Found")

FLAGS = (
    CONFIG._replace(help="a config whose data to check"),
    WORKDIR._replace(help="a run to check", required=False),
)

_OF_A_RUN = ("config.json", "checkpoints", "metrics.jsonl")

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
    """Checks the machine, and the data and run that are given.

    Args:
      config: the `ConfigDict` of --config, or `None`.
      workdir: a run's folder, or `None`.

    Returns:
      0, or 1 if a check fails.

    Raises:
      UserError: --config is invalid, or --workdir holds no part of a run.
    """
    from rnngen_jax import experiment
    from rnngen_jax.data.base import DataConfig

    wanted = [DataConfig()]
    if config is not None:
        wanted.append(experiment.check(config).data)
    folder = paths.reached(workdir) if workdir else None
    if folder is not None and not any(paths.exists(folder / name) for name in _OF_A_RUN):
        experiment.from_json(folder / "config.json")  # raises, as there is no run
    sound = [_versions(), computes := _machine()]
    settings = None
    if folder is not None:
        settings = _tried("config", lambda: experiment.from_json(folder / "config.json"))
        sound.append(settings is not None)
    if settings is not None:
        wanted.append(settings.data)
    opened = {data: _open(data) for data in dict.fromkeys(wanted)}
    sound += [dataset is not None for dataset in opened.values()]
    _prepared()
    if folder is not None:
        dataset = None if settings is None else opened[settings.data]
        sound.append(_run(folder, settings, dataset, computes))
    print("all sound" if all(sound) else "unsound: see the lines that begin with !")
    return 0 if all(sound) else 1


def _tried(what: str, attempt: Callable[[], Found]) -> Found | None:
    """The result of an attempt; `None` if it fails, after printing why."""
    try:
        return attempt()
    except (UserError, RunError, OSError) as error:
        why = refusal(error) if isinstance(error, OSError) else str(error)
        print(f"! {what}: {' '.join(why.split())}")
        return None


def _versions() -> bool:
    """Prints versions; returns whether all packages are installed."""
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
    """Prints devices and memory; returns whether the default device computes."""
    import jax.numpy as jnp

    from rnngen_jax.runs.backend import start_backend

    print(f"host: {os.cpu_count()} cores, {_host_memory()}")
    devices = _tried("devices", start_backend)
    if devices is None:
        return False
    for device in devices:
        statistics = device.memory_stats() or {}
        limit, used = statistics.get("bytes_limit"), statistics.get("bytes_in_use", 0)
        memory = f", {_gib(limit)}, {_gib(used)} in use" if limit else ", memory of the host"
        print(f"device {device.id}: {device.device_kind} ({device.platform}){memory}")
    computed = float(jnp.arange(4.0).sum())
    if computed != 6.0:
        print(f"! the default device computes 0 + 1 + 2 + 3 = {computed}")
    return computed == 6.0


def _host_memory() -> str:
    """A description of the host's memory."""
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page
    except (AttributeError, OSError, ValueError):  # not available on every system
        return "memory unknown"
    return f"{_gib(total)} memory, {_gib(free)} free"


def _prepared() -> None:
    """Prints the data sets that `prepare` has made."""
    from rnngen_jax.data import tfds

    root = tfds.data_dir()
    names = [f"tfds:{name}" for name in tfds.prepared(root)]
    print(f"prepared in {root}: {', '.join(names) or 'none'}")


def _open(config: "DataConfig") -> "Dataset | None":
    """Opens a data set and prints its sizes; `None` if it cannot be opened."""
    import numpy as np

    from rnngen_jax import data
    from rnngen_jax.runs import coded

    def read() -> "Dataset":
        dataset = data.load(coded.pinned(config))
        for split in dataset.splits.values():
            split.read(np.array([0, split.num - 1]))
        return dataset

    dataset = _tried(f"data {config.name}", read)
    if dataset is not None:
        spec = dataset.spec
        sizes = ", ".join(f"{split.num} {name}" for name, split in dataset.splits.items())
        print(
            f"data {config.name}: {'x'.join(map(str, spec.shape))}, {spec.levels} "
            f"levels, {spec.classes} classes; {sizes}"
        )
    return dataset


def _run(
    folder: Path, settings: "Experiment | None", dataset: "Dataset | None", computes: bool
) -> bool:
    """Prints whether each part of a run can be opened; returns whether all of them can."""
    from rnngen_jax.evaluation import records
    from rnngen_jax.training import sinks
    from rnngen_jax.training.checkpoints import open_checkpoints

    sound, logged = False, 0
    if not computes:
        print(f"! {folder}: without a device its checkpoints cannot be checked")
    elif checkpoints := _tried("checkpoints", lambda: open_checkpoints(folder / "checkpoints")):
        with checkpoints:
            sound, logged = _checkpoints(checkpoints, settings, dataset)
    path = folder / "metrics.jsonl"
    lines = _tried("metrics", lambda: sinks.read(path))
    if lines is not None:
        print(f"metrics: {len(lines)} lines, to step {lines[-1]['step'] if lines else 0}")
        if lost := sinks.shortfall(path, logged):
            print(f"! metrics: {lost}")
            sound = False
    evaluations = _tried("evaluations", lambda: records.read(folder))
    if evaluations:
        print(f"evaluations: {len(evaluations)}, the newest of step {evaluations[-1].get('step')}")
    return sound and lines is not None and evaluations is not None


def _checkpoints(
    checkpoints: "Checkpoints", settings: "Experiment | None", dataset: "Dataset | None"
) -> tuple[bool, int]:
    """Prints whether the verbs can open each checkpoint and resume from the newest.

    Returns:
      Whether there are checkpoints and all checks pass, and the step up to which metrics had been
      written at the newest.
    """
    from rnngen_jax import continuing, experiment
    from rnngen_jax.runs.judging import open_judge

    found = checkpoints.health()
    sound = bool(_tried("checkpoints", lambda: checkpoints.find(checkpoints.default())))
    for one in found:
        if not one.ok:
            print(f"! checkpoint {one.step}: {one.reason}")
            sound = False
    whole = [one.step for one in found if one.ok]
    model = None
    if settings is not None and dataset is not None:
        model = _tried("model", lambda: experiment.build(settings, dataset.spec))
    if model is None:
        for step in whole:
            print(f"checkpoint {step}: as it was written, but there is no model to open it with")
        return False, 0
    identity = continuing.identity(settings, dataset.spec)
    defaults, seeds = continuing.defaults(settings), settings.training.seeds
    for step in whole:

        def restore(step: int = step) -> object:
            return checkpoints.restore_evaluated(step, model, identity, seeds, defaults)

        opens = _tried(f"checkpoint {step}", restore) is not None
        if opens:
            print(f"checkpoint {step}: sound")
        sound = sound and opens
    if settings.evaluation.classifier:
        where = "config.evaluation.classifier"
        judge = _tried("judge", lambda: open_judge(settings.evaluation.classifier, dataset, where))
        sound = sound and judge is not None
    logged = _resumed(checkpoints, settings, model, dataset.spec, whole[-1]) if whole else 0
    return sound and logged is not None, logged or 0


def _resumed(
    checkpoints: "Checkpoints",
    settings: "Experiment",
    model: "Model",
    spec: "ImageSpec",
    step: int,
) -> int | None:
    """The step up to which metrics had been written; `None` if `step` cannot be resumed from."""
    import jax

    from rnngen_jax import continuing
    from rnngen_jax.training.program import initial_state
    from rnngen_jax.training.standing import Standing

    def resume() -> int:
        state = initial_state(model, settings.optimizers, settings.training)
        identity, defaults = continuing.identity(settings, spec), continuing.defaults(settings)
        _, meta = checkpoints.restore(step, jax.eval_shape(state), identity, defaults)
        return Standing.of(meta).logged

    return _tried(f"resuming from checkpoint {step}", resume)


def _gib(size: int) -> str:
    """A number of bytes in GiB, for people."""
    return f"{size / 2**30:.1f} GiB"
