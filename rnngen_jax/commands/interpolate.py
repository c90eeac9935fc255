"""Go from image to image through a model's latents, or along one latent variable.

  rnngen interpolate --workdir=runs/vae --num=5 --steps=9 --out=paths.png
  rnngen interpolate --workdir=runs/vae --kind=grid --indices=3,14,15,92 --out=between.png
  rnngen interpolate --workdir=runs/vae --kind=latent --latent=7 --indices=3 --out=variable.png
  rnngen interpolate --workdir=runs/vae --input=faces/ --steps=30 --out=paths.gif

--kind=pairs makes a row from each image to the next one; grid a table with four images in its
corners (upper left, upper right, lower left, lower right); latent a row along one latent variable
of one image, from -3 to 3 standard deviations of its prior. Variables are counted from 0, step
after step in models of several. The images are the first of --split or --input that are needed, or
those that --indices names, counted from 0. At the ends are the images' reconstructions.

--path=spherical keeps to the length that latents have, linear goes straight. In the picture each
path is a row. An npz as --out holds `image` (float32 [rows, columns, H, W, C] in [0, 1]) and
`latents` ([rows, columns, S, Z]); a .gif goes along all rows at once, and back. A class-conditional
model keeps along a path, or in a grid, to the class of the image where it begins, or to --label.
"""

from typing import TYPE_CHECKING

from rnngen_jax.commands.base import (
    INDICES,
    INPUT,
    KIND,
    LABEL,
    NUM,
    OUT,
    PATH,
    RUN,
    SPLIT,
    STEPS,
    VARIABLE,
    Chosen,
    Which,
    check_amount,
    check_split,
    open_run,
    read_images,
)
from rnngen_jax.config import require, require_choice
from rnngen_jax.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from rnngen_jax.models.base import Latent
    from rnngen_jax.runs import Run

FLAGS = (
    RUN,
    KIND,
    INPUT._replace(help="image file, folder of images or FILE.npz; by default images of --split"),
    SPLIT,
    INDICES._replace(help="which images, such as 0,1,2,3; by default the first ones"),
    NUM._replace(help="pairs: how many at most; by default 8, or all of --indices"),
    VARIABLE._replace(help=f"latent: {VARIABLE.help}"),
    STEPS,
    PATH._replace(help="linear or spherical; by default spherical for pairs, linear for a grid"),
    LABEL._replace(help="the class, a number; by default each first image's own"),
    OUT._replace(default="paths.png", help="FILE.png, FILE.npz or FILE.gif"),
)

PAIRS = 8
IMAGES = {"pairs": "two or more", "grid": "four", "latent": "one"}  # that each kind needs
LEAST = {"pairs": 2, "grid": 4, "latent": 1}
LARGEST = 2**31 - 1  # number that an image can have


def run(
    which: Which,
    kind: str,
    input: str | None,
    split: str,
    indices: str | None,
    num: int | None,
    latent: int | None,
    steps: int,
    path: str | None,
    label: str | None,
    out: str,
) -> int:
    """Interpolates.

    Args:
      which: the run and its checkpoint.
      kind: "pairs", "grid" or "latent".
      input: an image file, a folder or an npz, or `None` for the images of `split`.
      split: the split whose images are taken.
      indices: which images, numbers with commas between, or `None` for the first.
      num: how many pairs at most, or `None`.
      latent: which latent variable, for "latent" alone.
      steps: images along a path.
      path: "linear" or "spherical", or `None` for what suits the kind.
      label: a class, or `None` for the images' own.
      out: what to write.

    Returns:
      0.

    Raises:
      UserError: a flag that does not fit itself, the others or the model, no such run, checkpoint,
        seed or image, or a model without latents.
    """
    _check_kind(kind, num, latent, steps, path)
    named = None if indices is None else _parse_indices(indices, kind)
    check_split(split)
    from rnngen_jax.evaluation import pictures

    pictures.require_out(out, folder=False, endings=pictures.MOVING)
    opened = open_run(which)

    import numpy as np

    from rnngen_jax.evaluation import animations, sampling

    capable = sampling.latents_of(opened.model, "to go between images through")
    if latent is not None:
        _check_variable(latent, capable, opened.model.name)
    images, labels = _read(opened, input, split, label, kind, named, num)
    rows = steps if kind == "grid" else max(len(images) - 1, 1)
    check_amount("paths times --steps", rows * steps, opened.model.spec, out, size=4)

    means = opened.encode(images, labels=labels)
    latents, starts = _walk(kind, means, latent, steps, path)
    shape = latents.shape[:2]
    decoded = opened.decode(
        latents.reshape(-1, *capable.shape),
        labels=None if labels is None else np.repeat(labels[starts], shape[1]),
    ).reshape(*shape, *opened.spec.shape)
    if pictures.ending(out) == ".npz":
        pictures.write_npz(out, {"image": decoded, "latents": latents})
    elif pictures.ending(out) == ".gif":
        columns = np.moveaxis(pictures.to_bytes(decoded), 1, 0)
        frames = np.stack([pictures.grid(images, 256) for images in columns])
        animations.write_gif(out, animations.forth_and_back(frames))
    else:
        cells = pictures.to_pixels(pictures.to_bytes(decoded), 256)
        pictures.write_png(out, pictures.tile(cells))
    print(out)
    return 0


def _check_kind(
    kind: str, num: int | None, latent: int | None, steps: int, path: str | None
) -> None:
    """Raises a `UserError` for flags that do not fit, or do not go with the kind."""
    require_choice("--kind", kind, IMAGES)
    require(steps >= 2, "--steps", steps, "≥ 2")
    if path is not None:
        require_choice("--path", path, ("linear", "spherical"))
        if kind == "latent":
            raise UserError(f"--path={path} is not for --kind=latent; leave it out.")
    if num is not None:
        require(num >= 1, "--num", num, "≥ 1")
        if kind != "pairs":
            raise UserError(f"--num={num} is for --kind=pairs, not for {kind}; leave it out.")
    if latent is None and kind == "latent":
        raise UserError("--latent is missing; --kind=latent needs the number of a variable.")
    if latent is not None and kind != "latent":
        raise UserError(f"--latent={latent} is for --kind=latent, not for {kind}; leave it out.")


def _parse_indices(indices: str, kind: str) -> list[int]:
    """The images' numbers, as many as the kind needs."""
    words = [word.strip() for word in indices.split(",")]
    numbers = [int(word) if word.isascii() and word.isdigit() else -1 for word in words]
    fits = all(0 <= number <= LARGEST for number in numbers)
    require(fits, "--indices", indices, "comma-separated integers ≥ 0")
    enough = len(numbers) == LEAST[kind] or (kind == "pairs" and len(numbers) > LEAST[kind])
    require(enough, "--indices", indices, f"a list of {IMAGES[kind]} for --kind={kind}")
    return numbers


def _check_variable(number: int, latent: "Latent", name: str) -> None:
    """Raises a `UserError` unless the model has this latent variable, and a prior to measure it."""
    steps, size = latent.shape
    allowed = f"in [0, {steps * size - 1}]" + (f" ({steps} steps of {size})" if steps > 1 else "")
    require(0 <= number < steps * size, "--latent", number, allowed)
    if latent.prior is None:
        raise UserError(f"{name} has no prior, by which --kind=latent goes; give pairs or grid.")


def _read(
    opened: "Run",
    input: str | None,
    split: str,
    label: str | None,
    kind: str,
    named: list[int] | None,
    num: int | None,
) -> "tuple[np.ndarray, np.ndarray | None]":
    """The images that are the ends of paths, and their labels."""
    ends = LEAST[kind]
    if kind == "pairs":
        ends = (num or (PAIRS if named is None else len(named))) + 1
    needed = ends if named is None else max(named) + 1
    images, labels = read_images(opened, Chosen(input, split, needed, label))
    place = f"--split={split}" if input is None else f"--input={input}"
    if named is None and len(images) < LEAST[kind]:
        how_many = "image" if len(images) == 1 else "images"
        raise UserError(
            f"{place} has {len(images)} {how_many}; --kind={kind} needs {IMAGES[kind]}."
        )
    if named is not None and needed > len(images):
        raise UserError(
            f"--indices: {place} has no image {needed - 1}; allowed: 0 to {len(images) - 1}."
        )
    chosen = slice(ends) if named is None else named[:ends]
    return images[chosen], None if labels is None else labels[chosen]


def _walk(
    kind: str, means: "np.ndarray", variable: int | None, steps: int, path: str | None
) -> "tuple[np.ndarray, np.ndarray]":
    """Latents `[rows, columns, S, Z]`, and the number of the image where each row begins."""
    import numpy as np

    from rnngen_jax.evaluation import interpolation

    if variable is not None:
        return interpolation.along(means[0], variable, steps), np.zeros(1, int)
    if kind == "grid":
        return interpolation.grid(means, steps, path or "linear"), np.zeros(steps, int)
    return interpolation.pairs(means, steps, path or "spherical"), np.arange(len(means) - 1)
