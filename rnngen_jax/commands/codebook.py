"""Show the codebook of a model of codes: what each code stands for, and how often it is used.

  rnngen codebook --workdir=runs/vqvae --out=codebook/
  rnngen codebook --workdir=runs/codes --split=train --most=64 --out=codebook/
  rnngen codebook --workdir=runs/codes --out=codebook.npz

The images of --split, all of them or the first --num, or those of --input, are encoded. The folder
then holds three pictures:

  codes.png   the codes, the commonest first: in three cells each one's colour, the expected image
              of a grid that holds nothing but this code, and the same of the grid among those of
              the images in which the code has its commonest surroundings. Of either the cell shows
              the code's own place and the eight around it.
  usage.png   how often each code is used, the commonest first, and as a white line how often each
              would be if all were used alike
  maps.png    the first --shown images, each above its map of codes and its reconstruction

The colours are the first three principal components of the codes' vectors, so that like codes have
like colours. Of a residual or grouped quantiser each depth has a picture, codes_1.png and so on, in
which a code is shown with the others that it has in its commonest surroundings, and the histograms
are one below the other. Of two levels each has its own: codes_top.png, usage_bottom.png; where a
code of one is alone, the other has its commonest code everywhere.

An npz holds the arrays: `counts` [depth, K], `shown` [depth, S], the codes that are shown, `alone`
and `surrounded` [depth, S, H', W', C] in [0, 1], NaN outside of the image or for a code that is not
used, and `vectors` [depth, S, V]; `image` as shown, with `levels`, and `codes` [N, h, w, depth] and
`reconstruction` of these. Of two levels there are `top_counts` and so on.

Prints the perplexity, the share of codes in use and the number of dead ones over all images.
"""

from rnngen_jax.commands import figures, flags
from rnngen_jax.commands.base import bar, check_amount, first, joining, open_run, read_images
from rnngen_jax.commands.flags import Chosen, Flag, Which
from rnngen_jax.config import require

FLAGS = (
    flags.RUN,
    flags.images(num=None),
    Flag("most", "integer", "how many codes of each depth are shown, the commonest first", 256),
    Flag("shown", "integer", "how many images are shown with their maps of codes", 8),
    flags.OUT._replace(default="codebook/", help="FOLDER/ of pictures, or FILE.npz"),
    flags.HOSTS,
)


@joining
def run(which: Which, chosen: Chosen, most: int, shown: int, out: str) -> None:
    """Shows a codebook.

    Args:
      which: the run and checkpoint.
      chosen: the images whose codes are counted.
      most: number of codes shown of each depth.
      shown: number of images shown.
      out: folder of pictures, or npz, to write.

    Raises:
      UserError: an invalid flag; no such run, checkpoint or seed; images of another size; or a
        model without codes.
    """
    chosen.check()
    require(most >= 1, "--most", most, "≥ 1")
    require(shown >= 1, "--shown", shown, "≥ 1")
    from rnngen_jax.evaluation import pictures

    pictures.require_out(out, folder=True, endings=(".npz",))
    opened = open_run(which)

    import jax
    import numpy as np

    from rnngen_jax.evaluation import code_maps, codebook_pictures, codes, sampling
    from rnngen_jax.files import filling

    model, arrays = opened.model, (opened.params, opened.extra)
    own = sampling.codes_of(model, "to show")
    decode, levels = codebook_pictures.decoder(model), list(enumerate(own.names))
    images, _ = read_images(opened, chosen)
    check_amount("--most", min(most, own.specs[0].levels), model.spec, "codes.png")
    check_amount("--shown", min(shown, len(images)), model.spec, "maps.png")
    grids = jax.tree.leaves(sampling.code_encoder(model, bar)(*arrays, images))
    specs = own.specs, model.spec
    found = [
        codebook_pictures.code_images(decode, *arrays, grids, *specs, level, most)
        for level, _ in levels
    ]
    images, some = images[:shown], [grid[:shown] for grid in grids]
    mean, vectors = decode(*arrays, some)
    colours = code_maps.colours_of(model, *arrays)
    if not first():
        return
    if pictures.ending(out) == ".npz":
        stored = {"image": images, "levels": np.int32(model.spec.levels), "reconstruction": mean}
        for level, name in levels:
            given = {"codes": some[level], **found[level]._asdict()}
            stored |= {f"{name}_{key}".lstrip("_"): array for key, array in given.items()}
        pictures.write_npz(out, stored)
    else:
        drawn = {"maps": codebook_pictures.of_maps(images, mean, vectors, colours, *specs)}
        for level, name in levels:
            depths = own.specs[level].channels
            drawn[_named("usage", name)] = codebook_pictures.of_usage(found[level], colours[level])
            for depth in range(depths):
                title = _named("codes", name, str(depth + 1) if depths > 1 else "")
                drawn[title] = codebook_pictures.of_codes(found[level], depth, colours[level])
        with filling(out) as temporary:
            for name, picture in drawn.items():
                pictures.write_png(temporary / f"{name}.png", picture)
    used = {name: codes.usage_of(found[level].counts) for level, name in levels}
    for name, usage in used.items():
        at = f"{name}/" if name else ""
        figures.print_codes({f"{at}{key}": value for key, value in usage.metrics().items()})
        if usage.collapsed:
            print(usage.warning(name))
    print(out)


def _named(*parts: str) -> str:
    """The name of a picture from its parts that are not empty."""
    return "_".join(filter(None, parts))
