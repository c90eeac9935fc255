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
are one below the other. An npz holds the arrays: `count` [depth, K], `code` [depth, S] as shown,
`alone` and `surrounded` [depth, S, H', W', C] in [0, 1], NaN outside of the image or for a code
that is not used; `image` as shown, `codes` [N, h, w, depth] and `reconstruction` of these.

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

CODES, USAGE, MAPS = "codes{}.png", "usage.png", "maps.png"


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

    from rnngen_jax.evaluation import code_maps, codebook_pictures, codes, sampling
    from rnngen_jax.files import filling

    model, arrays = opened.model, (opened.params, opened.extra)
    grid = sampling.codes_of(model, "to show").spec
    decode = codebook_pictures.decoder(model)
    images, _ = read_images(opened, chosen)
    check_amount("--most", min(most, grid.levels), model.spec, CODES.format(""))
    check_amount("--shown", min(shown, len(images)), model.spec, MAPS)
    grids = sampling.code_encoder(model, bar)(*arrays, images)
    found = codebook_pictures.code_images(decode, *arrays, grids, grid, model.spec, most)
    images, some = images[:shown], grids[:shown]
    mean, vectors = decode(*arrays, some)
    colours = code_maps.colours_of(model, *arrays)
    if not first():
        return
    used = codes.usage_of(found.counts)
    if pictures.ending(out) == ".npz":
        stored = {"count": found.counts, "code": found.shown, "alone": found.alone}
        stored |= {"surrounded": found.surrounded, "image": images, "codes": some}
        pictures.write_npz(out, {**stored, "reconstruction": mean})
    else:
        maps = codebook_pictures.of_maps(images, mean, vectors, colours, grid, model.spec)
        drawn = {MAPS: maps, USAGE: codebook_pictures.of_usage(found, colours)}
        for depth in range(grid.channels):
            name = CODES.format(f"_{depth + 1}" if grid.channels > 1 else "")
            drawn[name] = codebook_pictures.of_codes(found, depth, colours)
        with filling(out) as temporary:
            for name, picture in drawn.items():
                pictures.write_png(temporary / name, picture)
    figures.print_codes(used.metrics())
    if used.collapsed:
        print(used.warning())
    print(out)
