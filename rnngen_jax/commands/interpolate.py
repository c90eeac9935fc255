"""Interpolate between images through a model's latents, or traverse one latent variable.

  rnngen interpolate --workdir=runs/vae --num=5 --steps=9 --out=paths.png
  rnngen interpolate --workdir=runs/vae --kind=grid --indices=3,14,15,92 --out=between.png
  rnngen interpolate --workdir=runs/vae --kind=latent --latent=7 --indices=3 --out=variable.png
  rnngen interpolate --workdir=runs/vae --input=faces/ --steps=30 --out=paths.gif

--kind=pairs makes a row from each image to the next; grid a table with four images in its corners
(upper left, upper right, lower left, lower right); latent a row along one latent variable of one
image, from -3 to 3 standard deviations of its prior. Variables are counted from 0, step after step
in models of several steps. The images are the first ones needed of --split or --input, or those
that --indices names, counted from 0. A path starts and ends at the images' reconstructions.

--path=spherical interpolates along a sphere, so that latents keep their norm; linear along a line.
In the picture each path is a row. An npz as --out holds `image` (float32 [rows, columns, H, W, C]
in [0, 1]) and `latents` ([rows, columns, S, Z]); a .gif runs along all rows at once, and back. A
class-conditional model uses one class per path or grid: that of its first image, or --label.
"""

from typing import TYPE_CHECKING

from rnngen_jax.commands import flags
from rnngen_jax.commands.base import check_amount, first, joining, open_run, read_images
from rnngen_jax.commands.flags import Chosen, Flag, Group, Which
from rnngen_jax.config import require, require_choice
from rnngen_jax.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from rnngen_jax.models.base import Latent
    from rnngen_jax.runs import Run

FLAGS = (
    flags.RUN,
    Flag("kind", "string", "pairs, grid or latent", "pairs"),
    Group(
        "chosen",
        Chosen,
        (
            flags.INPUT,
            flags.SPLIT,
            flags.NUM._replace(help="pairs: how many at most; by default 8, or all of --indices"),
            flags.LABEL._replace(help="the class, an integer; by default each first image's own"),
        ),
    ),
    Flag("indices", "string", "which images, such as 0,1,2,3; by default the first ones"),
    Flag("latent", "integer", "latent: which latent variable, counted from 0, step after step"),
    Flag("steps", "integer", "images per path, ≥ 2", 9),
    Flag("path", "string", "linear or spherical; by default spherical for pairs, linear for grid"),
    flags.OUT._replace(default="paths.png", help="FILE.png, FILE.npz, FILE.gif or FILE.webp"),
    flags.HOSTS,
)

PAIRS = 8  # by default
IMAGES = {"pairs": "two or more", "grid": "four", "latent": "one"}  # that each kind needs
LEAST = {"pairs": 2, "grid": 4, "latent": 1}
LARGEST = 2**31 - 1  # index of an image


@joining
def run(
    which: Which,
    kind: str,
    chosen: Chosen,
    indices: str | None,
    latent: int | None,
    steps: int,
    path: str | None,
    out: str,
) -> None:
    """Interpolates between images.

    Args:
      which: the run and checkpoint.
      kind: "pairs", "grid" or "latent".
      chosen: the images; their `num` is the largest number of pairs.
      indices: comma-separated indices of images, or `None` for the first ones.
      latent: index of the latent variable, for the kind "latent" only.
      steps: images per path.
      path: "linear" or "spherical", or `None` for the kind's default.
      out: file to write.

    Raises:
      UserError: flags that are invalid, contradict each other or do not suit the model; no such
        run, checkpoint, seed or image; or a model without latents.
    """
    _check_kind(kind, chosen.num, latent, steps, path)
    named = None if indices is None else _parse_indices(indices, kind)
    chosen.check()
    from rnngen_jax.evaluation import pictures

    pictures.require_out(out, folder=False, endings=pictures.MOVING)
    opened = open_run(which)

    import numpy as np

    from rnngen_jax.evaluation import animations, sampling

    capable = sampling.latents_of(opened.model, "to interpolate")
    if latent is not None:
        _check_variable(latent, capable, opened.model.name)
    images, labels = _read(opened, chosen, kind, named)
    rows = steps if kind == "grid" else max(len(images) - 1, 1)
    check_amount("paths times --steps", rows * steps, opened.model.spec, out, size=4)

    means = opened.encode(images, labels=labels)
    latents, starts = _walk(kind, means, latent, steps, path)
    shape = latents.shape[:2]
    decoded = opened.decode(
        latents.reshape(-1, *capable.shape),
        labels=None if labels is None else np.repeat(labels[starts], shape[1]),
    ).reshape(*shape, *opened.spec.shape)
    if not first():
        return
    if pictures.ending(out) == ".npz":
        pictures.write_npz(out, {"image": decoded, "latents": latents})
    elif pictures.animated(out):
        columns = np.moveaxis(pictures.to_bytes(decoded), 1, 0)
        frames = np.stack([pictures.grid(images, 256) for images in columns])
        animations.write_animation(out, animations.forth_and_back(frames))
    else:
        cells = pictures.to_pixels(pictures.to_bytes(decoded), 256)
        pictures.write_png(out, pictures.tile(cells))
    print(out)


def _check_kind(
    kind: str, num: int | None, latent: int | None, steps: int, path: str | None
) -> None:
    """Raises a `UserError` for invalid flags, or flags of another kind."""
    require_choice("--kind", kind, IMAGES)
    require(steps >= 2, "--steps", steps, "≥ 2")
    if path is not None:
        require_choice("--path", path, ("linear", "spherical"))
        if kind == "latent":
            raise UserError(f"--path={path} is not for --kind=latent; leave it out.")
    if num is not None and kind != "pairs":
        raise UserError(f"--num={num} is for --kind=pairs, not for {kind}; leave it out.")
    if latent is None and kind == "latent":
        raise UserError("--latent is missing; --kind=latent needs the index of a variable.")
    if latent is not None and kind != "latent":
        raise UserError(f"--latent={latent} is for --kind=latent, not for {kind}; leave it out.")


def _parse_indices(indices: str, kind: str) -> list[int]:
    """Parses the images' indices, as many as the kind needs."""
    words = [word.strip() for word in indices.split(",")]
    numbers = [int(word) if word.isascii() and word.isdigit() else -1 for word in words]
    fits = all(0 <= number <= LARGEST for number in numbers)
    require(fits, "--indices", indices, "comma-separated integers ≥ 0")
    enough = len(numbers) == LEAST[kind] or (kind == "pairs" and len(numbers) > LEAST[kind])
    require(enough, "--indices", indices, f"a list of {IMAGES[kind]} for --kind={kind}")
    return numbers


def _check_variable(number: int, latent: "Latent", name: str) -> None:
    """Raises a `UserError` unless the model has this latent variable, and a prior to scale it."""
    steps, size = latent.shape
    allowed = f"in [0, {steps * size - 1}]" + (f" ({steps} steps of {size})" if steps > 1 else "")
    require(0 <= number < steps * size, "--latent", number, allowed)
    if latent.prior is None:
        raise UserError(
            f"{name} has no prior, which sets the scale of --kind=latent; give pairs or grid."
        )


def _read(
    opened: "Run", chosen: Chosen, kind: str, named: list[int] | None
) -> "tuple[np.ndarray, np.ndarray | None]":
    """Reads the images at the ends of paths, and their labels."""
    ends = LEAST[kind]
    if kind == "pairs":
        ends = (chosen.num or (PAIRS if named is None else len(named))) + 1
    needed = ends if named is None else max(named) + 1
    images, labels = read_images(opened, chosen._replace(num=needed))
    if named is None and len(images) < LEAST[kind]:
        how_many = "image" if len(images) == 1 else "images"
        raise UserError(
            f"{chosen.place} has {len(images)} {how_many}; --kind={kind} needs {IMAGES[kind]}."
        )
    if named is not None and needed > len(images):
        raise UserError(
            f"--indices must be in [0, {len(images) - 1}] for {chosen.place}, got {needed - 1}."
        )
    ends_of_paths = slice(ends) if named is None else named[:ends]
    return images[ends_of_paths], None if labels is None else labels[ends_of_paths]


def _walk(
    kind: str, means: "np.ndarray", variable: int | None, steps: int, path: str | None
) -> "tuple[np.ndarray, np.ndarray]":
    """Latents `[rows, columns, S, Z]`, and the index of the image at the start of each row."""
    import numpy as np

    from rnngen_jax.evaluation import interpolation

    if variable is not None:
        return interpolation.along(means[0], variable, steps), np.zeros(1, int)
    if kind == "grid":
        return interpolation.grid(means, steps, path or "linear"), np.zeros(steps, int)
    return interpolation.pairs(means, steps, path or "spherical"), np.arange(len(means) - 1)
