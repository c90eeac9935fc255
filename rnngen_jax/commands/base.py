"""Helpers that verbs share: hosts, opening a run, the images to work on, limits, progress."""

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from rnngen_jax.commands.flags import Chosen, Hosts, Which
from rnngen_jax.config import require
from rnngen_jax.errors import UserError
from rnngen_jax.shapes import ImageSpec

if TYPE_CHECKING:  # these import JAX, which --help must not wait for
    import numpy as np

    from rnngen_jax.data.base import Dataset
    from rnngen_jax.models.base import Model
    from rnngen_jax.runs import Run

MOST_IN_PICTURE = 10_000  # images in one grid, 100 per side
MOST_IN_ANIMATION = 1_000  # images in an animation, each frame of which may show them all
MOST_BYTES = 2**31  # of all images of one command, which are held in memory


def joining(run: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a verb's `run` join the other processes that the flags `HOSTS` find, if there are any.

    All of them then compute, and the `first` one writes and prints. All must have been given the
    same flags.
    """

    @functools.wraps(run)
    def joined(*, hosts: Hosts, **arguments: Any) -> Any:
        settings = {
            name: value._asdict() if hasattr(value, "_asdict") else value
            for name, value in arguments.items()
        }
        with hosts.joined(settings) as peers, peers.explained():
            return run(**arguments)

    return joined


def first() -> bool:
    """Whether this is the process that writes and prints."""
    import jax

    return jax.process_index() == 0


def require_one_process(verb: str) -> None:
    """Raises a `UserError` if a verb that works in one process is started in several."""
    from rnngen_jax.hosts.place import place

    found = place()
    if found is not None:
        raise UserError(
            f"{verb} works in one process, on all of its devices, and this is one of "
            f"{found.count}; start one, without JAX_COORDINATOR_ADDRESS."
        )


def open_run(which: Which) -> "Run":
    """Opens a run, with a progress bar over its batches.

    If the run has several seeds, prints which one was opened.

    Raises:
      UserError, RunError: as `runs.load`.
    """
    from rnngen_jax import runs

    opened = runs.load(which.workdir, which.checkpoint, seed_index=which.seed_index, track=bar)
    lowest, seeds = opened.experiment.training.seed, opened.experiment.training.seeds
    if seeds > 1 and first():
        seeds_of_run = f"{lowest} to {lowest + seeds - 1}"
        print(f"seed {opened.seed} of {seeds_of_run}; --seed_index=0 to {seeds - 1} picks one.")
    return opened


def dataset_of(opened: "Run") -> "Dataset":
    """A run's own data, for a verb that also accepts other images.

    Raises:
      UserError: the data are missing or have changed.
    """
    try:
        return opened.dataset
    except UserError as error:
        raise UserError(f"{error} Or give images of your own with --input.") from None


def read_images(
    opened: "Run", chosen: Chosen, exact: bool = False
) -> "tuple[np.ndarray, np.ndarray | None]":
    """Reads the images that a verb works on, from --input or else from --split.

    Args:
      opened: the run.
      chosen: which images.
      exact: whether to refuse 8-bit images with values between the model's levels.

    Returns:
      uint8 `[N, H, W, C]`, and int32 `[N]`, or `None` for a model that is not class-conditional.

    Raises:
      UserError: images or a label that the model cannot take, or a missing class.
    """
    import numpy as np

    from rnngen_jax.evaluation import inputs

    spec = opened.model.spec
    label = check_label(chosen.label, opened.model)
    if chosen.input is None:
        images, labels = inputs.read_split(dataset_of(opened), chosen.split, chosen.num)
    else:
        images, labels = inputs.read_images(chosen.input, spec, chosen.num, exact)
    if label is not None:
        labels = np.full(len(images), label, np.int32)
    if opened.model.conditional and labels is None:
        raise UserError(
            f"--input={chosen.input} has no labels, and the model needs classes; "
            f"give --label, 0 to {spec.classes - 1}."
        )
    return images, labels if opened.model.conditional else None


def check_label(label: str | None, model: "Model") -> int | None:
    """The class that --label names, or `None` if it is not given.

    Raises:
      UserError: not a class of the model, or the model is not class-conditional.
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
    """Raises a `UserError` if `num` images are too many for one picture or for memory.

    Args:
      flag: the flags that set the number, for the message.
      num: number of images.
      spec: the images.
      out: the file to write.
      size: bytes per value.
    """
    most = MOST_BYTES // (spec.dims * size)
    if out.lower().endswith(".png"):
        most = min(most, MOST_IN_PICTURE)
    if out.lower().endswith((".gif", ".webp")):
        most = min(most, MOST_IN_ANIMATION)
    require(num <= most, flag, num, f"≤ {most} for images of this size in {out!r}")


def bar(batches: range) -> Iterable[int]:
    """A progress bar over batches, shown by the first process on a terminal, removed at the end."""
    from tqdm import tqdm

    return tqdm(batches, unit="batch", leave=False, disable=None if first() else True)
