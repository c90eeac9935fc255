"""What verbs share: their flags, and opening a run from its folder."""

import pathlib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from rnngen_jax import interrupts
from rnngen_jax.config import require, require_choice
from rnngen_jax.errors import RunError, UserError
from rnngen_jax.shapes import ImageSpec

if TYPE_CHECKING:  # these import JAX, which --help must not wait for
    import jax
    import numpy as np

    from rnngen_jax.data.base import Dataset
    from rnngen_jax.experiment import Experiment
    from rnngen_jax.models.base import Extra, Model, Params


class Flag(NamedTuple):
    """A flag of the command line.

    Attributes:
      name: without dashes.
      kind: "string", "integer", "float", or "config" for a config file with its overrides.
      help: one line.
      default: its value when not given; `None` for none.
      required: whether the verb refuses to start without it.
    """

    name: str
    kind: str
    help: str
    default: Any = None
    required: bool = False


CONFIG = Flag(
    "config",
    "config",
    "NAME or FILE.py, with :PRESET if it has any; then --config.SECTION.FIELD=VALUE sets a field",
)
WORKDIR = Flag("workdir", "string", "the run's folder", required=True)
CHECKPOINT = Flag(
    "checkpoint",
    "string",
    "best, latest or a step; by default best, or latest in a run that has no validation yet",
)
NUM = Flag("num", "integer", "how many images")
LABEL = Flag("label", "string", "the class, a number")
TEMPERATURE = Flag(
    "temperature",
    "float",
    "divides logits and multiplies the scales of mixture components, Gaussians, latents and noise: "
    "below 1 draws more likely images, above 1 more varied ones",
    1.0,
)
SEED = Flag("seed", "integer", "seed of the draw, 0 or more", 0)
OUT = Flag("out", "string", "the file to write; its ending picks the kind")
SPLIT = Flag("split", "string", "train, validation or test", "test")
MASK = Flag("mask", "string", "which pixels are missing")
INPUT = Flag("input", "string", "images to work on")
CANDIDATES = Flag(
    "candidates",
    "integer",
    "draws that each completion is chosen from by their importance weights; by default 1, or 8 a "
    "round of a model of latent variables",
)
COMPLETIONS = Flag("completions", "integer", "how many completions of each image", 3)
REPLICA = Flag("replica", "integer", "which replica of a run of several, counted from 0", 0)
NAME = Flag("name", "string", "name of the data set to make")
PIXELS = Flag("pixels", "string", "draw or mean: drawn, or the image to be expected", "draw")
KIND = Flag("kind", "string", "pairs, grid or latent", "pairs")
VARIABLE = Flag("latent", "integer", "which latent variable, from 0, step after step")
INDICES = Flag("indices", "string", "which images, such as 0,1,2,3")
STEPS = Flag("steps", "integer", "images along a path, 2 or more", 9)
PATH = Flag("path", "string", "linear or spherical")
PREEMPTED_EXIT_CODE = Flag(
    "preempted_exit_code",
    "integer",
    "what SIGTERM ends with once the run is saved, 0 to 255",
    interrupts.PREEMPTED,
)
DATA_DIR = Flag("data_dir", "string", "folder of prepared data sets")

MOST_IN_PICTURE = 10_000  # images in one grid, a hundred a side
MOST_IN_ANIMATION = 1_000  # images in a GIF, each frame of which may show them all
MOST_BYTES = 2**31  # of all images of one command, which are held in memory
TEMPERATURES = (1e-6, 1e6)  # beyond, float32 logits overflow, and what is drawn is no sample


class Run(NamedTuple):
    """A trained run, opened from its folder.

    Attributes:
      workdir: the folder.
      experiment: its checked config.
      dataset: the data that the config names.
      model: the model, built for that data.
      params, extra: the checkpoint's parameters (their moving average where the run keeps one)
        and state, of one replica.
      step: the checkpoint's step.
      replica: which replica; 0 of a run that has one.
    """

    workdir: pathlib.Path
    experiment: "Experiment"
    dataset: "Dataset"
    model: "Model"
    params: "Params"
    extra: "Extra"
    step: int
    replica: int


def start_backend() -> "list[jax.Device]":
    """Starts JAX's devices, so that a machine without them is not told as damage to what is read.

    Returns:
      Those of this process.

    Raises:
      RunError: JAX cannot start the platform of JAX_PLATFORMS, or the one that it picks.
    """
    import jax

    try:
        return jax.local_devices()
    except (RuntimeError, AssertionError) as error:
        # JAX passes over "cuda" on a machine without a GPU, and asserts that something is left.
        lines = str(error).splitlines() or ["this machine has no such device"]
        why = re.sub(r" \((set|you may) .*", "", lines[0]).rstrip(".")
        asked = jax.config.jax_platforms
        if asked:
            todo = f"JAX_PLATFORMS={asked} cannot be used: {why}; unset it, or set it to cpu."
        else:
            todo = f"JAX cannot start its devices: {why}; set JAX_PLATFORMS=cpu to do without."
        raise RunError(todo) from None


def open_run(workdir: str, checkpoint: str | None, replica: int) -> Run:
    """Opens a run: config, data, model and a checkpoint's parameters.

    Of a run of several replicas it prints which one is taken.

    Args:
      workdir: the run's folder.
      checkpoint: "best", "latest", a step as a string, or `None` for the best, or the latest where
        nothing has been validated.
      replica: which replica.

    Raises:
      UserError: no run there, no such checkpoint or replica, or a checkpoint of another model.
      RunError: there are no devices to compute on.
    """
    (opened,) = open_replicas(workdir, checkpoint, replica)
    replicas = opened.experiment.training.replicas
    if replicas > 1:
        print(f"replica {replica} of {replicas}; --replica=0 to {replicas - 1} picks one.")
    return opened


def open_replicas(workdir: str, checkpoint: str | None, replica: int | None) -> list[Run]:
    """Opens each replica of a run, or one of them; they share all but parameters and state.

    Args:
      workdir, checkpoint: as for `open_run`.
      replica: which replica, or `None` for all.

    Raises:
      UserError, RunError: as `open_run`.
    """
    import jax

    from rnngen_jax import data, experiment
    from rnngen_jax.training.checkpoints import open_checkpoints
    from rnngen_jax.training.replicas import pick

    folder = pathlib.Path(workdir)
    settings = experiment.from_json(folder / "config.json")
    replicas = settings.training.replicas
    if replica is not None:
        check_replica(replica, replicas)
    start_backend()
    dataset = data.load(settings.data)
    model = experiment.build(settings, dataset.spec)
    identity = experiment.identity(settings, dataset.spec)
    with open_checkpoints(folder / "checkpoints") as checkpoints:
        which = checkpoint or checkpoints.default()
        found = checkpoints.restore_evaluated(which, model, identity, replicas)

    def of(replica: int) -> Run:
        arrays = pick((found.params, found.extra), replica, replicas)
        params, extra = jax.device_put(arrays)
        return Run(folder, settings, dataset, model, params, extra, found.step, replica)

    return [of(r) for r in (range(replicas) if replica is None else [replica])]


def read_images(
    opened: Run,
    input: str | None,
    split: str,
    num: int | None,
    label: str | None,
    exact: bool = False,
) -> "tuple[np.ndarray, np.ndarray | None]":
    """The images that a verb works on, those of --input or else of --split.

    Args:
      opened: the run.
      input: an image file, a folder or an npz, or `None`.
      split: the split whose images are taken without `input`.
      num: how many images at most, `None` for all.
      label: the class that --label gives to all of them, or `None` for their own.
      exact: refuses 8-bit images that lie between the model's levels.

    Returns:
      uint8 `[N, H, W, C]`, and int32 `[N]`, or `None` for a model that is not conditional.

    Raises:
      UserError: images or a label that do not fit, or a class that is needed and not known.
    """
    import numpy as np

    from rnngen_jax.evaluation import inputs

    spec = opened.model.spec
    one = check_label(label, opened.model)
    if input is None:
        images, labels = inputs.read_split(opened.dataset, split, num)
    else:
        images, labels = inputs.read_images(input, spec, num, exact)
    if one is not None:
        labels = np.full(len(images), one, np.int32)
    if opened.model.conditional and labels is None:
        raise UserError(
            f"--input={input} has no labels, and the model needs classes; "
            f"give --label, 0 to {spec.classes - 1}."
        )
    return images, labels if opened.model.conditional else None


def model_digest(opened: Run) -> bytes:
    """What tells a run's model from all others: 8 bytes over its fields, images and parameters."""
    import numpy as np

    from rnngen_jax import experiment
    from rnngen_jax.evaluation import container
    from rnngen_jax.training import digests

    arrays = digests.named({"params": opened.params, "extra": opened.extra})
    facts = {
        "identity": experiment.identity(opened.experiment, opened.dataset.spec),
        "arrays": {name: digests.describe(np.asarray(array)) for name, array in arrays.items()},
    }
    return container.digest([digests.digest(facts).encode()])


def check_replica(replica: int, replicas: int) -> None:
    """Raises a `UserError` unless a run of so many replicas has this one."""
    allowed = "0, as the run has one replica" if replicas == 1 else f"0 to {replicas - 1}"
    require(0 <= replica < replicas, "--replica", replica, allowed)


def check_split(split: str) -> None:
    """Raises a `UserError` unless `split` is the name of one."""
    from rnngen_jax.data.base import SPLITS

    require_choice("--split", split, SPLITS)


def check_label(label: str | None, model: "Model") -> int | None:
    """The class that --label names, or `None` for none.

    Raises:
      UserError: not a class of the model, or any class for an unconditional model.
    """
    if label is None:
        return None
    if not model.conditional:
        raise UserError(
            f"--label={label}: the model is not class-conditional; leave --label out, "
            "or train with --config.model.class_conditional."
        )
    number = int(label) if label.isascii() and label.isdigit() else -1
    allowed = f"a class, 0 to {model.spec.classes - 1}"
    require(0 <= number < model.spec.classes, "--label", label, allowed)
    return number


def check_amount(flag: str, num: int, spec: ImageSpec, out: str, size: int = 1) -> None:
    """Raises a `UserError` for more images than fit in one picture or in memory.

    Args:
      flag: the flags that ask for them, for the message.
      num: how many there would be.
      spec: the images.
      out: the file to write.
      size: bytes of a value.
    """
    most = MOST_BYTES // (spec.dims * size)
    if out.lower().endswith(".png"):
        most = min(most, MOST_IN_PICTURE)
    if out.lower().endswith(".gif"):
        most = min(most, MOST_IN_ANIMATION)
    require(num <= most, flag, num, f"up to {most} images of this size in {out!r}")


def check_seed(seed: int) -> None:
    """Raises a `UserError` unless `seed` is one that JAX takes on every platform."""
    require(0 <= seed < 2**31, "--seed", seed, "0 to 2147483647")


def check_temperature(temperature: float) -> None:
    """Raises a `UserError` unless `temperature` can divide float32 logits and leave numbers."""
    low, high = TEMPERATURES
    require(low <= temperature <= high, "--temperature", temperature, f"{low:g} to {high:g}")


def bar(batches: range) -> Iterable[int]:
    """A progress bar over batches, on a terminal; it goes away at the end."""
    from tqdm import tqdm

    return tqdm(batches, unit="batch", leave=False, disable=None)
