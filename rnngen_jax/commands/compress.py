"""Compress images, without loss to about as many bits as the model's likelihood says.

  rnngen compress --workdir=runs/digits --out=digits.rnn
  rnngen compress --workdir=runs/digits --input=scans/ --out=scans.rnn
  rnngen decompress --workdir=runs/digits --input=digits.rnn --out=digits.npz
  rnngen compress --workdir=runs/codes --lossy --out=codes.rnn

Works with every model that has an exact likelihood, value by value. The images are those of
--split, all or the first --num, or those of --input: an image file, a folder of images, or an npz
with the array `image`. The file keeps the pixels, the names of image files, and for a
class-conditional model the labels (--label, or the images' own). 8-bit images must lie on the
model's grey levels, 0 to 255 in equal steps; others are refused, as they would not be restored
exactly.

`decompress` needs the same model, checkpoint and seed. The probabilities must be equal to the last
bit, so it also needs the same kind of machine and version of JAX; it never returns pixels that
differ.

More than 1,024 images, or fewer large ones, are coded in batches, as many at once as this process
has devices; the file does not depend on how many those are.

Prints, beside the file's size, the model's own likelihood of the same images, and the sizes that
PNG and lossless WebP reach at maximum effort on the first of them (up to 2^19 values, since WebP is
slow): each image in a file of its own, and all on one sheet. Below 256 levels both store grey
levels in the most compact way.

--lossy keeps the codes alone that a run with a codebook gives the images, such as one of vqvae,
vqgan, code_rnn or code_prior (the last two have a prior, for the others all codes are equally
likely), and `decompress` makes images of them. It prints how many bits a pixel takes, and PSNR and
SSIM of what comes back against the images at the model's levels. `rate_distortion` shows them
beside JPEG and WebP.
"""

import math
from typing import TYPE_CHECKING

from rnngen_jax import paths
from rnngen_jax.commands import flags
from rnngen_jax.commands.base import (
    check_amount,
    dataset_of,
    open_run,
    read_images,
    require_one_process,
)
from rnngen_jax.commands.flags import Chosen, Flag, Which
from rnngen_jax.config import require
from rnngen_jax.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from rnngen_jax.runs import Run
    from rnngen_jax.runs.coding import Compressed

FLAGS = (
    flags.RUN,
    flags.images(num=None),
    flags.OUT._replace(default="images.rnn", help="FILE.rnn"),
    Flag("lossy", "boolean", "keep the codes of a VQ-VAE alone, with loss", False),
)

COMPARED = 2**19  # values given to PNG and WebP: WebP takes about 10 μs per value


def run(which: Which, chosen: Chosen, out: str, lossy: bool) -> None:
    """Compresses images.

    Args:
      which: the run and checkpoint.
      chosen: the images to compress.
      out: the .rnn file to write.
      lossy: whether to keep the images' codes alone.

    Raises:
      UserError: an invalid flag; no such run, checkpoint or seed; images of another size or, unless
        `lossy`, with values between the model's levels; or a model that cannot compress.
      RunError: probabilities that are not finite.
    """
    chosen.check()
    from rnngen_jax.evaluation import container

    fits = out.lower().endswith(container.ENDING) and not paths.of(out).is_dir()
    require(fits, "--out", out, f"a file that ends in {container.ENDING}")
    opened = open_run(which)
    require_one_process("compress")

    from rnngen_jax.files import replacing
    from rnngen_jax.runs import coding

    coding.model_coded(opened.model, lossy)
    if chosen.input is None:
        source = dataset_of(opened).splits[chosen.split]
        most = min(chosen.num or source.num, source.num)
        check_amount("--num", most, opened.spec, out)
    images, labels = read_images(opened, chosen, exact=not lossy)
    check_amount("--num", len(images), opened.spec, out)
    names = None if chosen.input is None else _names(chosen.input, chosen.num)
    done = coding.compress(opened, images, labels, loss=lossy, names=names)
    with replacing(out) as temporary:
        temporary.write_bytes(done.whole)
    print(f"checkpoint:     step {opened.step} of {which.workdir}")
    print(f"images:         {len(images)}, {images.size:,} values of {opened.spec.levels} levels")
    if lossy:
        _print_lossy(opened, images, labels, done)
    else:
        _print_lossless(opened, images, labels, done)
    print(
        f"speed:          {len(images) / done.coding:,.1f} images/s, "
        f"after {done.compiling:.1f} s of compiling"
    )
    if not lossy and not _is_coded(opened):
        _compare(images, opened.spec.levels)
    print(out)


def _is_coded(opened: "Run") -> bool:
    """Whether the run's data are codes."""
    from rnngen_jax.data import codes

    return codes.origin(opened.experiment.data.name) is not None


def _print_lossless(
    opened: "Run", images: "np.ndarray", labels: "np.ndarray | None", done: "Compressed"
) -> None:
    """Prints the file's size beside the likelihood."""
    per = "code" if _is_coded(opened) else "dimension"
    bits = 8 * len(done.whole) / images.size
    print(f"file:           {len(done.whole):,} bytes, {bits:.4f} bits per {per}")
    nats = opened.nats(images, labels=labels).mean()
    print(f"likelihood:     {nats / opened.spec.dims / math.log(2):.4f} bits per {per}")


def _print_lossy(
    opened: "Run", images: "np.ndarray", labels: "np.ndarray | None", done: "Compressed"
) -> None:
    """Prints the file's size and what the images lose."""
    from rnngen_jax.evaluation import container
    from rnngen_jax.evaluation.distortion import distortion
    from rnngen_jax.runs import coding

    pixels, whole = images[..., 0].size, len(done.whole)
    content = container.unpack(done.whole, "the file")
    back = coding.rebuilt(opened, done.items)
    lost = distortion(back, images, opened.spec.levels)
    print(f"file:           {whole:,} bytes, {8 * whole / pixels:.4f} bits per pixel, {lost}")
    grids = coding.named(content.grids)
    print(f"payload:        {done.payload:,} bytes, {8 * done.payload / pixels:.4f} bits per pixel")
    bits = coding.code_nats(opened, done.items, labels).sum() / math.log(2)
    print(f"likelihood:     {bits / pixels:.4f} bits per pixel, of {grids} per image")


def _names(input: str, num: int | None) -> tuple[str, ...] | None:
    """The names of image files without extensions; `None` for an npz, or if they only number them.

    Raises:
      UserError: two equal names, or one that is not a plain file name.
    """
    from rnngen_jax.evaluation import container, inputs, pictures

    names = tuple(file.stem for file in inputs.image_files(input, num))
    try:
        container.check_names(names)
    except ValueError as error:
        raise UserError(f"--input={input}: {error}; rename it.") from None
    return None if list(names) in ([], pictures.numbered(len(names))) else names


def _compare(images: "np.ndarray", levels: int) -> None:
    """Prints the sizes of the first images as PNG and WebP, unless they are codes."""
    from rnngen_jax.evaluation import formats, pictures

    images = pictures.strips(images)
    if levels > 256 or images.shape[-1] not in (1, 3):
        return
    first = images[: max(1, COMPARED // images[0].size)]
    whose = "" if len(first) == len(images) else f" of the first {len(first)} images"
    for title, sizes in (("PNG", formats.png(first, levels)), ("WebP", formats.webp(first))):
        singles, sheet = (8 * size / first.size for size in sizes)
        print(
            f"{title + ':':<15} {singles:.4f} bits per dimension{whose} as single files, "
            f"{sheet:.4f} on one sheet"
        )
