"""Reconstruct images from their latents: what a latent-variable model keeps of them.

  rnngen reconstruct --workdir=runs/vae --num=10 --out=rebuilt.png
  rnngen reconstruct --workdir=runs/draw --split=validation --num=8 --out=rebuilt.gif
  rnngen reconstruct --workdir=runs/vae --input=photo.png --out=rebuilt.npz

The images are the first --num of --split, or those of --input: an image file, a folder of images,
or an npz with the array `image`. Each is encoded as the means of its posterior, which are decoded
to the expected image. In the picture each image is a column: the original above its reconstruction.
An npz as --out holds `image` (grey levels, with `levels`) and `reconstruction` (float32
[N, H, W, C] in [0, 1]). A .gif needs a model that draws step by step: it shows in green what each
step reads of the original, and in red where it writes on the canvas. Of a model of codes it shows
an image's codes one after another, and below them the image expected given the codes so far.

Prints the mean squared error over all values, in [0, 1]. A class-conditional model takes the
images' own labels, or --label.
"""

from typing import TYPE_CHECKING

from rnngen_jax.commands import flags
from rnngen_jax.commands.base import bar, check_amount, first, joining, open_run, read_images
from rnngen_jax.commands.flags import Chosen, Which

if TYPE_CHECKING:
    import numpy as np

    from rnngen_jax.runs import Run

FLAGS = (
    flags.RUN,
    flags.images(num=8),
    flags.OUT._replace(default="rebuilt.png", help="FILE.png, FILE.npz, FILE.gif or FILE.webp"),
    flags.HOSTS,
)


@joining
def run(which: Which, chosen: Chosen, out: str) -> None:
    """Reconstructs images.

    Args:
      which: the run and checkpoint.
      chosen: the images.
      out: the picture, npz or animation to write.

    Raises:
      UserError: an invalid flag; no such run, checkpoint or seed; images of another size; or a
        model without latents, or with neither canvases nor codes for a .gif.
    """
    chosen.check()
    from rnngen_jax.evaluation import pictures

    pictures.require_out(out, folder=False, endings=pictures.MOVING)
    opened = open_run(which)

    import numpy as np

    from rnngen_jax.evaluation import animations, sampling

    model = opened.model
    moving = pictures.animated(out)
    sampling.latents_of(model, "to rebuild images from")
    if moving and model.codes is None:
        sampling.require_canvases(model)
    images, labels = read_images(opened, chosen)
    check_amount("--num", len(images), model.spec, out, size=4)
    latents = opened.encode(images, labels=labels)
    rebuilt = opened.decode(latents, labels=labels)
    error = np.square(rebuilt - images / (model.spec.levels - 1)).mean()
    if moving:
        frames = _frames(opened, images, labels, latents)
    if not first():
        return
    if moving:
        animations.write_animation(out, frames, hold=animations.HOLD)
    elif pictures.ending(out) == ".npz":
        stored = {"image": images, "reconstruction": rebuilt}
        pictures.write_npz(out, {**stored, "levels": np.int32(model.spec.levels)})
    else:
        pictures.write_png(out, pictures.reconstructions(images, rebuilt, model.spec.levels))
    print(f"mean squared error: {error:.6f} of values in [0, 1], {len(images)} images")
    print(out)


def _frames(
    opened: "Run",
    images: "np.ndarray",
    labels: "np.ndarray | None",
    latents: "np.ndarray",
) -> "np.ndarray":
    """The frames of the animation, uint8 RGB."""
    import jax

    from rnngen_jax.evaluation import animations, code_maps, drawing, sampling

    model, arrays = opened.model, (opened.params, opened.extra)
    if model.codes is None:
        canvases = sampling.stepwise_decoder(model, bar)(*arrays, latents, labels)
        return animations.reconstructed(images, canvases, model.spec.levels)
    grids = sampling.code_encoder(model)(*arrays, images)
    film = drawing.filmer(model, bar)(*arrays, jax.random.key(0), grids, labels)
    colours = code_maps.colours_of(model, *arrays)
    return animations.reconstructed_codes(images, film, colours, model.codes.specs, model.spec)
