"""Complete damaged images: several completions of each, beside the original and the damaged one.

  rnngen complete --workdir=runs/digits --mask=lower --num=10 --out=completed.png
  rnngen complete --workdir=runs/digits --mask=upper --candidates=32 --out=completed.png
  rnngen complete --workdir=runs/digits --mask=hole.png --input=photo.png --completions=5
  rnngen complete --workdir=runs/video --mask=frames:8-12 --num=3 --out=between.gif

The masks lower, upper and centre hide that half, or a central box of half the height and width;
random hides half of the pixels, different ones in each image. A mask image has the images' size,
black where pixels are missing and white where they are known. Of sequences, the same pixels are
hidden in all frames; --mask=frames:8-12 hides whole frames, counted from 1.

The images are the first --num of --split, or those of --input: an image file, a folder of images,
or an npz with the array `image`. In the picture each image is a column: the original, the damaged
image with the missing pixels in blue, then the completions; a sequence is a strip of frames, and a
.gif or .webp shows sequences as animations. An npz as --out holds `image` (of sequences `frames`),
`known` and `completed` ([N, completions, H, W, C]). A class-conditional model takes the images' own
labels, or --label.

An autoregressive model draws each missing pixel given the pixels before it in its order, so a
single draw ignores known pixels that come later. With --candidates=K each completion is chosen
among K draws by how likely they make those pixels (sampling-importance-resampling). This is the
model's own conditional distribution as K goes to infinity, and close to it as long as the printed
effective sample size is far above 1. A latent-variable model alternates between drawing latents and
missing pixels (Gibbs sampling), and chooses the latents of each round among K draws. A model of
codes chooses a grid of codes among K draws, which its encoder has directed to the known pixels, and
then changes it code by code (Metropolis steps). One line of the output says which known pixels were
used, and how.

The target is the distribution that `rnngen sample` draws from at the same --temperature, given the
known pixels. The temperature divides the logits of categorical and Bernoulli readouts; for a
logistic mixture it divides the components' logits and multiplies their scales, for a Gaussian it
multiplies the standard deviation. It also multiplies the standard deviation of the latents' prior.

Batches are spread over all devices. On several hosts, start the same command on each, as for train:
all of them compute, and the first one prints and writes.
"""

from rnngen_jax.commands import flags
from rnngen_jax.commands.base import bar, check_amount, first, joining, open_run, read_images
from rnngen_jax.commands.flags import Chosen, Flag, Which
from rnngen_jax.config import require, to_mapping
from rnngen_jax.errors import UserError

FLAGS = (
    flags.RUN,
    Flag(
        "mask",
        "string",
        "lower, upper, centre, random, frames:FIRST-LAST or FILE.png (white: known)",
        "lower",
    ),
    flags.images(num=8),
    Flag("completions", "integer", "how many completions of each image", 3),
    Flag(
        "candidates",
        "integer",
        "draws among which each completion is chosen by importance weight; by default 1, 8 per "
        "round for latent-variable models, or 64 for models of codes",
    ),
    flags.TEMPERATURE,
    flags.SEED,
    flags.OUT._replace(
        default="completed.png", help="FILE.png, FILE.npz; of sequences FILE.gif or FILE.webp"
    ),
    flags.HOSTS,
)


@joining
def run(
    which: Which,
    mask: str,
    chosen: Chosen,
    completions: int,
    candidates: int | None,
    temperature: float,
    seed: int,
    out: str,
) -> None:
    """Completes images.

    Args:
      which: the run and checkpoint.
      mask: name of a mask, or path of a mask image.
      chosen: the images.
      completions: number of completions of each image.
      candidates: number of draws among which each completion is chosen; `None` for the model's
        default.
      temperature: divides logits, multiplies scales.
      seed: seed of the draws and of random masks.
      out: file to write.

    Raises:
      UserError: an invalid flag; no such run, checkpoint or seed; images or a mask of another size;
        or a model that cannot complete images.
    """
    chosen.check()
    require(completions >= 1, "--completions", completions, "≥ 1")
    require(candidates is None or candidates >= 1, "--candidates", candidates, "≥ 1")
    from rnngen_jax.evaluation import pictures
    from rnngen_jax.runs import arguments

    arguments.check_seed(seed, "--seed")
    arguments.check_temperature(temperature, "--temperature")
    pictures.require_out(out, folder=False, endings=pictures.MOVING)
    opened = open_run(which)
    if pictures.animated(out) and not opened.spec.frames:
        raise UserError(f"--out={out} shows sequences of frames; of still images give a .png.")

    import jax
    import numpy as np

    from rnngen_jax.evaluation import animations, completion, inputs, sampling

    spec = opened.model.spec
    key = jax.random.key(seed)
    complete = sampling.completer(opened.model, bar, candidates)
    images, labels = read_images(opened, chosen)
    check_amount("--num times --completions", len(images) * completions, spec, out)
    known = inputs.known_pixels(mask, key, len(images), spec)

    def each(array: np.ndarray) -> np.ndarray:
        return np.repeat(array, completions, axis=0)

    found = complete(
        opened.params,
        opened.extra,
        key,
        each(images),
        each(known),
        None if labels is None else each(labels),
        temperature,
    )
    if not first():
        return
    completed = found.image.reshape(len(images), completions, *spec.shape)
    if pictures.animated(out):
        rows = pictures.completed_rows(images, known, completed, spec.levels)
        frames = np.stack([pictures.tile(cells) for cells in np.moveaxis(rows, 2, 0)])
        animations.write_animation(out, frames)
    elif pictures.ending(out) == ".npz":
        arrays = {spec.key: images, "known": known, "completed": completed}
        pictures.write_npz(out, {**arrays, "levels": np.int32(spec.levels)})
    else:
        pictures.write_png(out, pictures.completions(images, known, completed, spec.levels))
    fields = to_mapping(opened.experiment.model)
    orders = completion.of_orders(opened.experiment.name, fields, spec, known)
    print(completion.described(opened.model, known, candidates, found, orders))
    print(out)
