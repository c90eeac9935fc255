"""Draw images from a trained run.

  rnngen sample --workdir=runs/digits --num=64 --out=digits.png
  rnngen sample --workdir=runs/digits --num=1000 --temperature=0.8 --out=digits.npz
  rnngen sample --workdir=runs/digits --num=10 --out=pictures/
  rnngen sample --workdir=runs/vae --num=64 --pixels=mean --out=expected.png
  rnngen sample --workdir=runs/draw --num=36 --out=drawing.gif
  rnngen sample --workdir=runs/video --num=9 --out=moving.webp

--out ends in .png for one grid, in .npz for the array `image` of grey levels (uint8
[N, H, W, C], with `levels`, and `label` for a class-conditional model), or in / for a folder of
single PNGs. Without --label, a class-conditional model cycles through its classes, 0, 1, 2, ... The
same seed gives the same images, and --num=10 gives the first ten of --num=1000.

A latent-variable model draws its latents first, and then each pixel given them. With --pixels=mean
it shows the expected image of the same latents instead, in 256 levels.

A .gif or lossless .webp shows sequences of frames as animations. Of still images it needs a model
that draws step by step: it shows the expected images of these latents after each step, and in red
where the step wrote. Of a model of codes it shows the codes as they are drawn, in colours that are
alike for like codes, and beside them the image expected by then, given those codes alone.

A run on codes:RUN draws grids of codes: an npz holds the codes themselves, and pictures are those
that the decoder of RUN makes of them, which must have the parameters that wrote the codes.

--temperature=T divides the logits of categorical and Bernoulli readouts, so that probabilities
become p^(1/T), normalised. For a logistic mixture it divides the components' logits and multiplies
their scales by T, so that samples at low temperatures approach the mean of the heaviest component,
which need not be the most likely level; for a Gaussian it multiplies the standard deviation. It
also multiplies latents drawn from the prior and the noise of adversarial models.

Batches are spread over all devices. On several hosts, start the same command on each, as for train:
all of them compute, and the first one writes.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from rnngen_jax.commands import flags
from rnngen_jax.commands.base import bar, check_amount, check_label, first, joining, open_run
from rnngen_jax.commands.flags import Flag, Which
from rnngen_jax.config import require, require_choice

if TYPE_CHECKING:
    import numpy as np

    from rnngen_jax.runs import Run

FLAGS = (
    flags.RUN,
    flags.NUM._replace(default=64),
    flags.LABEL._replace(
        help="the class, an integer, or all to cycle through the classes", default="all"
    ),
    flags.TEMPERATURE,
    Flag("pixels", "string", "draw or mean: drawn pixels, or the expected image", "draw"),
    flags.SEED,
    flags.OUT._replace(
        default="samples.png", help="FILE.png, FILE.npz, FILE.gif, FILE.webp or FOLDER/"
    ),
    flags.HOSTS,
)


@joining
def run(
    which: Which,
    num: int,
    label: str,
    temperature: float,
    pixels: str,
    seed: int,
    out: str,
) -> None:
    """Draws samples.

    Args:
      which: the run and checkpoint.
      num: number of images.
      label: a class, or "all" to cycle through the classes.
      temperature: divides logits, multiplies scales.
      pixels: "draw" or "mean".
      seed: seed of the draw.
      out: file or folder to write.

    Raises:
      UserError: an invalid flag; no such run, checkpoint or seed; or a model that cannot sample,
        has no latents for --pixels=mean, or neither canvases nor codes for a .gif.
    """
    require(num >= 1, "--num", num, "≥ 1")
    require_choice("--pixels", pixels, ("draw", "mean"))
    from rnngen_jax.evaluation import pictures
    from rnngen_jax.runs import arguments

    arguments.check_seed(seed, "--seed")
    arguments.check_temperature(temperature, "--temperature")
    pictures.require_out(out, folder=True, endings=pictures.MOVING)
    opened = open_run(which)
    tokenizer = _tokenizer(opened, pixels == "mean", out)
    shown = opened.spec if tokenizer is None else tokenizer.spec
    check_amount("--num", num, shown, out, size=4 if pixels == "mean" else 1)

    import numpy as np

    from rnngen_jax.evaluation import sampling

    one = check_label(None if label == "all" else label, opened.model)
    labels = sampling.cycled(opened.model, num) if one is None else np.full(num, one, np.int32)
    write = _drawn(opened, tokenizer, num, labels, temperature, pixels == "mean", seed, out)
    if first():
        write()
        print(out)


def _tokenizer(opened: "Run", mean: bool, out: str) -> "Run | None":
    """The run whose decoder shows the codes that are drawn; `None` if they are not to be shown.

    Raises:
      UserError: it cannot be opened, or has other parameters by now.
    """
    from rnngen_jax.data import codes
    from rnngen_jax.evaluation import pictures
    from rnngen_jax.runs import coded

    origin = codes.origin(opened.experiment.data.name)
    ending = pictures.ending(out)
    if origin is None or pictures.animated(out) or (ending == ".npz" and not mean):
        return None
    asked = f"--out={out} of images, not of codes (--out=FILE.npz with --pixels=draw),"
    return coded.open_tokenizer(origin, asked)


def _drawn(
    opened: "Run",
    tokenizer: "Run | None",
    num: int,
    labels: "np.ndarray | None",
    temperature: float,
    mean: bool,
    seed: int,
    out: str,
) -> Callable[[], None]:
    """Draws, in all processes, and returns the function that writes."""
    import jax
    import numpy as np

    from rnngen_jax.evaluation import animations, pictures, sampling
    from rnngen_jax.runs import coded

    if tokenizer is not None:
        found = opened.sample(num, seed=seed, labels=labels, temperature=temperature)
        images = coded.decoded(tokenizer, found, seed=seed, temperature=temperature, mean=mean)
        images = pictures.to_bytes(images) if mean else images
        levels = 256 if mean else tokenizer.spec.levels
        return functools.partial(pictures.write_samples, out, images, labels, levels)
    moving, levels = pictures.animated(out), opened.model.spec.levels
    if moving and opened.model.codes is not None:
        frames = _frames(opened, num, labels, temperature, seed)
        return functools.partial(animations.write_animation, out, frames, hold=animations.HOLD)
    if (moving and not opened.spec.frames) or (mean and not moving):
        make = sampling.stepwise_decoder if moving else sampling.decoder
        decode = make(opened.model, bar)
        key, draw = jax.random.key(seed), sampling.prior_sampler(opened.model)
        latents = draw(opened.params, opened.extra, key, num, labels, temperature)
        decoded = decode(opened.params, opened.extra, latents, labels)
        if moving:
            return lambda: animations.write_animation(
                out, animations.sampled(decoded), hold=animations.HOLD
            )
        expected = pictures.to_bytes(decoded)
        return functools.partial(pictures.write_samples, out, expected, labels, 256)
    images = opened.sample(num, seed=seed, labels=labels, temperature=temperature)
    if moving:
        frames = np.stack([pictures.grid(images[:, t], levels) for t in range(images.shape[1])])
        return functools.partial(animations.write_animation, out, frames, hold=animations.HOLD)
    return functools.partial(pictures.write_samples, out, images, labels, levels)


def _frames(
    opened: "Run", num: int, labels: "np.ndarray | None", temperature: float, seed: int
) -> "np.ndarray":
    """The frames of codes being drawn, uint8 RGB: those of the images of the seed."""
    import jax

    from rnngen_jax.evaluation import animations, code_maps, drawing, sampling

    model, arrays, key = opened.model, (opened.params, opened.extra), jax.random.key(seed)
    grids = sampling.code_sampler(model)(*arrays, key, num, labels, temperature)
    film = drawing.filmer(model, bar)(*arrays, key, grids, labels, temperature)
    colours = code_maps.colours_of(model, *arrays)
    return animations.sampled_codes(film, colours, model.codes.specs, model.spec)
