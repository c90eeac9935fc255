"""What verbs share: their flags, opening a run, and reading the images to work on."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from rnngen_jax import interrupts
from rnngen_jax.config import require, require_choice
from rnngen_jax.errors import UserError
from rnngen_jax.shapes import ImageSpec

if TYPE_CHECKING:  # these import JAX, which --help must not wait for
    import numpy as np

    from rnngen_jax.data.base import Dataset
    from rnngen_jax.models.base import Model
    from rnngen_jax.runs import Run


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


class Group(NamedTuple):
    """Flags that go together and come to the verb as one argument.

    Attributes:
      name: the argument's.
      make: `make(**values)`, from the flags' values by their names.
      flags: the flags.
    """

    name: str
    make: Callable[..., Any]
    flags: tuple[Flag, ...]


class Which(NamedTuple):
    """A checkpoint of a run.

    Attributes:
      workdir: the run's folder.
      checkpoint: "best", "latest", a step as a string, or `None` for the best, or the latest where
        nothing has been validated.
      seed_index: which seed of a run of several.
    """

    workdir: str
    checkpoint: str | None
    seed_index: int


class Chosen(NamedTuple):
    """The images that a verb works on.

    Attributes:
      input: an image file, a folder or an npz, or `None` for the images of `split`.
      split: the split whose images are taken.
      num: how many images at most, or `None` for all.
      label: the class of all of them, or `None` for their own.
    """

    input: str | None
    split: str
    num: int | None
    label: str | None

    def check(self) -> None:
        """Raises a `UserError` for a number or a split that does not fit."""
        require(self.num is None or self.num >= 1, "--num", self.num, "≥ 1")
        check_split(self.split)


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
SEED_INDEX = Flag("seed_index", "integer", "which seed of a run of several, counted from 0", 0)
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

RUN = Group("which", Which, (WORKDIR, CHECKPOINT, SEED_INDEX))


def images_of(num: int | None) -> Group:
    """The flags that choose the images to work on, by default the first `num`, or all."""
    which = "from the start; by default all" if num is None else "from the start"
    return Group(
        "chosen",
        Chosen,
        (
            INPUT._replace(
                help="image file, folder of images or FILE.npz; by default images of --split"
            ),
            SPLIT,
            NUM._replace(default=num, help=f"how many images, {which}"),
            LABEL._replace(help="the class, a number; by default each image's own"),
        ),
    )


def flags_of(taken: Iterable[Flag | Group]) -> list[Flag]:
    """All flags of a verb, those of its groups, too, in their order."""
    return [flag for one in taken for flag in (one.flags if isinstance(one, Group) else (one,))]


def arguments_of(taken: Iterable[Flag | Group], values: Mapping[str, Any]) -> dict[str, Any]:
    """What a verb's `run` is called with, from the flags' values by name."""
    return {
        one.name: one.make(**{flag.name: values[flag.name] for flag in one.flags})
        if isinstance(one, Group)
        else values[one.name]
        for one in taken
    }


MOST_IN_PICTURE = 10_000  # images in one grid, a hundred a side
MOST_IN_ANIMATION = 1_000  # images in a GIF, each frame of which may show them all
MOST_BYTES = 2**31  # of all images of one command, which are held in memory


def open_run(which: Which) -> "Run":
    """Opens a run for a verb, with a progress bar over its batches.

    Of a run of several seeds it prints which one is taken.

    Raises:
      UserError, RunError: as `runs.load`.
    """
    from rnngen_jax import runs

    opened = runs.load(which.workdir, which.checkpoint, seed_index=which.seed_index, track=bar)
    first, seeds = opened.experiment.training.seed, opened.experiment.training.seeds
    if seeds > 1:
        all_of_them = f"{first} to {first + seeds - 1}"
        print(f"seed {opened.seed} of {all_of_them}; --seed_index=0 to {seeds - 1} picks one.")
    return opened


def dataset_of(opened: "Run") -> "Dataset":
    """A run's own data, for a verb that could work on other images.

    Raises:
      UserError: they are not there, or have changed.
    """
    try:
        return opened.dataset
    except UserError as error:
        raise UserError(f"{error} Or give images of your own with --input.") from None


def read_images(
    opened: "Run", chosen: Chosen, exact: bool = False
) -> "tuple[np.ndarray, np.ndarray | None]":
    """The images that a verb works on, those of --input or else of --split.

    Args:
      opened: the run.
      chosen: which images.
      exact: refuses 8-bit images that lie between the model's levels.

    Returns:
      uint8 `[N, H, W, C]`, and int32 `[N]`, or `None` for a model that is not conditional.

    Raises:
      UserError: images or a label that do not fit, or a class that is needed and not known.
    """
    import numpy as np

    from rnngen_jax.evaluation import inputs

    spec, input, num = opened.model.spec, chosen.input, chosen.num
    one = check_label(chosen.label, opened.model)
    if input is None:
        images, labels = inputs.read_split(dataset_of(opened), chosen.split, num)
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
    allowed = f"a class in [0, {model.spec.classes - 1}]"
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
    require(num <= most, flag, num, f"≤ {most} for images of this size in {out!r}")


def bar(batches: range) -> Iterable[int]:
    """A progress bar over batches, on a terminal; it goes away at the end."""
    from tqdm import tqdm

    return tqdm(batches, unit="batch", leave=False, disable=None)
