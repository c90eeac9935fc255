"""Draw images from a trained run.

  rnngen sample --workdir=runs/digits --num=64 --out=digits.png
  rnngen sample --workdir=runs/digits --num=1000 --temperature=0.8 --out=digits.npz
  rnngen sample --workdir=runs/digits --num=10 --out=pictures/
  rnngen sample --workdir=runs/vae --num=64 --pixels=mean --out=expected.png
  rnngen sample --workdir=runs/draw --num=36 --out=drawing.gif

--out ends in .png for one grid, in .npz for the array `image` of grey levels (uint8
[N, H, W, C], with `levels`, and `label` for a class-conditional model), or in / for a folder of
single PNGs. Without --label, a class-conditional model cycles through its classes, 0, 1, 2, ... The
same seed gives the same images, and --num=10 gives the first ten of --num=1000.

A latent-variable model draws its latents first, and then each pixel given them. With --pixels=mean
it shows the expected image of the same latents instead, in 256 levels. A .gif needs a model that
draws step by step: it shows the expected images of these latents after each step, and in red where
the step wrote.

--temperature=T divides the logits of categorical and Bernoulli readouts, so that probabilities
become p^(1/T), normalised. For a logistic mixture it divides the components' logits and multiplies
their scales by T, so that samples at low temperatures approach the mean of the heaviest component,
which need not be the most likely level; for a Gaussian it multiplies the standard deviation. It
also multiplies latents drawn from the prior and the noise of adversarial models.
"""

from typing import TYPE_CHECKING

from rnngen_jax.commands import flags
from rnngen_jax.commands.base import bar, check_amount, check_label, open_run
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
    flags.OUT._replace(default="samples.png", help="FILE.png, FILE.npz, FILE.gif or FOLDER/"),
)


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
        has no latents for --pixels=mean, or no canvases for a .gif.
    """
    require(num >= 1, "--num", num, "≥ 1")
    require_choice("--pixels", pixels, ("draw", "mean"))
    from rnngen_jax.evaluation import pictures
    from rnngen_jax.runs import arguments

    arguments.check_seed(seed, "--seed")
    arguments.check_temperature(temperature, "--temperature")
    pictures.require_out(out, folder=True, endings=pictures.MOVING)
    opened = open_run(which)
    check_amount("--num", num, opened.model.spec, out, size=4 if pixels == "mean" else 1)

    import numpy as np

    from rnngen_jax.evaluation import animations, sampling

    one = check_label(None if label == "all" else label, opened.model)
    labels = sampling.cycled(opened.model, num) if one is None else np.full(num, one, np.int32)
    if pictures.ending(out) == ".gif" and opened.spec.frames:
        images = opened.sample(num, seed=seed, labels=labels, temperature=temperature)
        frames = [pictures.grid(images[:, t], opened.spec.levels) for t in range(images.shape[1])]
        animations.write_gif(out, np.stack(frames), hold=animations.HOLD)
    elif pictures.ending(out) == ".gif":
        _write_canvases(opened, num, labels, temperature, seed, out)
    elif pixels == "mean":
        decode = sampling.decoder(opened.model, bar)
        latents = _imagined(opened, num, labels, temperature, seed)
        expected = decode(opened.params, opened.extra, latents, labels)
        pictures.write_samples(out, pictures.to_bytes(expected), labels, 256)
    else:
        images = opened.sample(num, seed=seed, labels=labels, temperature=temperature)
        pictures.write_samples(out, images, labels, opened.model.spec.levels)
    print(out)


def _imagined(
    opened: "Run", num: int, labels: "np.ndarray | None", temperature: float, seed: int
) -> "np.ndarray":
    """Draws the latents behind the samples of the same arguments."""
    import jax

    from rnngen_jax.evaluation import sampling

    sample, key = sampling.prior_sampler(opened.model), jax.random.key(seed)
    return sample(opened.params, opened.extra, key, num, labels, temperature)


def _write_canvases(
    opened: "Run", num: int, labels: "np.ndarray | None", temperature: float, seed: int, out: str
) -> None:
    """Writes an animation of samples as they are drawn, step by step."""
    from rnngen_jax.evaluation import animations, sampling

    decode = sampling.stepwise_decoder(opened.model, bar)
    latents = _imagined(opened, num, labels, temperature, seed)
    canvases = decode(opened.params, opened.extra, latents, labels)
    animations.write_gif(out, animations.sampled(canvases), hold=animations.HOLD)
