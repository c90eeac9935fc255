"""Complete damaged images: several guesses for each, beside the original and the damaged one.

  rnngen complete --workdir=runs/digits --mask=lower --num=10 --out=completed.png
  rnngen complete --workdir=runs/digits --mask=upper --candidates=32 --out=completed.png
  rnngen complete --workdir=runs/digits --mask=hole.png --input=photo.png --completions=5

The masks lower, upper and centre miss that half, or the box of half the height and width in the
middle; random misses half of the pixels, others in each image. A mask image is black where pixels
are missing and white where they are known, and of the images' size.

The images are the first --num of --split, or those of --input: an image file, a folder of images,
or an npz with the array `image`. In the picture each image is a column: the original, the damaged
image with the missing pixels in blue, then the completions. An npz as --out holds `image`, `known`
and `completed` ([N, completions, H, W, C]). A class-conditional model takes the images' own labels,
or --label.

An autoregressive model draws each missing pixel given the pixels before it in its order, so a
single draw does not know of known pixels that come later. With --candidates=K each completion is
one of K draws, chosen by how likely those pixels are after it (sampling-importance-resampling): the
model's own distribution in the limit of large K, and near to it as long as the effective sample
size that is printed is far above 1. A model of latent variables draws latents and missing pixels in
turn (Gibbs sampling), and chooses the latents of each round from K draws. One line of the output
says which known pixels were used, and how.

The target is what `rnngen sample` draws at the same --temperature, given the known pixels. It
divides the logits of categorical and Bernoulli readouts; of a logistic mixture it divides the
components' logits and multiplies their scales, of a Gaussian it multiplies the standard deviation.
It multiplies the standard deviation of latents in the prior, too.
"""

from rnngen_jax.commands.base import (
    CANDIDATES,
    COMPLETIONS,
    MASK,
    OUT,
    RUN,
    SEED,
    TEMPERATURE,
    Chosen,
    Which,
    bar,
    check_amount,
    images_of,
    open_run,
    read_images,
)
from rnngen_jax.config import require, to_mapping

FLAGS = (
    RUN,
    MASK._replace(default="lower", help="lower, upper, centre, random or FILE.png (white: known)"),
    images_of(num=8),
    COMPLETIONS,
    CANDIDATES,
    TEMPERATURE,
    SEED,
    OUT._replace(default="completed.png", help="FILE.png or FILE.npz"),
)


def run(
    which: Which,
    mask: str,
    chosen: Chosen,
    completions: int,
    candidates: int | None,
    temperature: float,
    seed: int,
    out: str,
) -> int:
    """Completes images.

    Args:
      which: the run and its checkpoint.
      mask: a mask's name, or the path of a mask image.
      chosen: the images.
      completions: how many completions of each.
      candidates: how many draws there are to choose each completion from; `None` for the model's
        own number.
      temperature: what logits are divided by, and scales multiplied.
      seed: seed of the draw and of random masks.
      out: what to write.

    Returns:
      0.

    Raises:
      UserError: a flag that does not fit, no such run, checkpoint or seed, images or a mask of
        another size, or a model that cannot complete.
    """
    chosen.check()
    require(completions >= 1, "--completions", completions, "≥ 1")
    require(candidates is None or candidates >= 1, "--candidates", candidates, "≥ 1")
    from rnngen_jax.evaluation import pictures
    from rnngen_jax.runs import arguments

    arguments.check_seed(seed, "--seed")
    arguments.check_temperature(temperature, "--temperature")
    pictures.require_out(out, folder=False)
    opened = open_run(which)

    import jax
    import numpy as np

    from rnngen_jax.evaluation import completion, inputs, sampling

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
    completed = found.image.reshape(len(images), completions, *spec.shape)
    if out.lower().endswith(".npz"):
        arrays = {spec.key: images, "known": known, "completed": completed}
        pictures.write_npz(out, {**arrays, "levels": np.int32(spec.levels)})
    else:
        pictures.write_png(out, pictures.completions(images, known, completed, spec.levels))
    fields = to_mapping(opened.experiment.model)
    orders = completion.of_orders(opened.experiment.name, fields, spec, known)
    print(completion.described(opened.model, known, candidates, found, orders))
    print(out)
    return 0
