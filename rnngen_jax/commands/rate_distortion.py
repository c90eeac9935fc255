"""Measure rate against distortion of compression by codes, beside JPEG and WebP.

  rnngen rate_distortion --workdir=runs/codes --num=1000 --out=curves
  rnngen rate_distortion --workdir=runs/codes,runs/codes_large --out=curves

--workdir names runs that `compress --lossy` takes, trained on the same data; each is a point. The
images are those of --split, the first --num, or those of --input. JPEG and lossy WebP have all of
them on one sheet, at qualities up to 95, as in files of their own their headers would outweigh
images so small; with each run's point stands that of the smallest payload that has at least its
PSNR (or of the best PSNR, if none has).

bytes are those of whole files; payload leaves out headers: of a .rnn file all but what the range
coder wrote; of JPEG all but entropy-coded data, so Huffman tables too; of WebP the RIFF and chunk
headers and the frame's. Bits per pixel are the payload's. PSNR is of the squared error over all
images; SSIM is the mean over images, in Gaussian windows of 11x11 pixels (9x9 or 7x7 in smaller
images, and left out below 7). The sizes of the models themselves are not counted.

--out is a folder for rate_distortion.json with all points, the sheets as PNG, and the plot
rate_distortion.png, for which matplotlib must be installed (pip install rnngen_jax[plots]).
"""

from typing import TYPE_CHECKING

from rnngen_jax import paths
from rnngen_jax.commands import flags
from rnngen_jax.commands.base import check_amount, open_run, read_images, require_one_process
from rnngen_jax.commands.flags import Chosen, Which
from rnngen_jax.config import require
from rnngen_jax.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from rnngen_jax.runs import Run

FLAGS = (
    flags.RUN._replace(
        flags=(
            flags.WORKDIR._replace(help="folders of runs, comma-separated"),
            *flags.RUN.flags[1:],
        )
    ),
    flags.images(num=1000),
    flags.OUT._replace(help="folder to write; by default only the table is printed"),
)


def run(which: Which, chosen: Chosen, out: str | None) -> None:
    """Measures rate and distortion.

    Args:
      which: the runs, comma-separated, and their checkpoint.
      chosen: the images.
      out: folder to write to, or `None` to write nothing.

    Raises:
      UserError: an invalid flag; no such run, checkpoint or seed; a model without codes; runs of
        other images; images that JPEG cannot hold; or a folder that cannot be written to.
      RunError: probabilities that are not finite.
    """
    chosen.check()
    folders = [folder for folder in which.workdir.split(",") if folder]
    require(bool(folders), "--workdir", which.workdir, "folders of runs, comma-separated")
    if out is not None:
        file = paths.of(out).is_file()
        require(out != "" and not file, "--out", out, "a folder")
    from rnngen_jax.evaluation import container, lossy, lossy_formats, rate_distortion
    from rnngen_jax.runs import coding

    names = [paths.of(folder).name for folder in folders]
    rate_distortion.require_names(names)
    runs = [open_run(which._replace(workdir=folder)) for folder in folders]
    require_one_process("rate_distortion")
    for opened in runs:
        lossy.lossy_of(opened.model)
    spec = runs[0].spec
    lossy_formats.require_fits(spec.channels)
    images, labels = _images(runs, chosen)
    check_amount("--num", len(images), spec, out or "")
    found = []
    for name, opened, own in zip(names, runs, labels, strict=True):
        done = coding.compress(opened, images, own, loss=True)
        content = container.unpack(done.whole, name)
        back = coding.decompress(opened, content, name).images
        sizes = len(done.whole), done.payload
        found.append((rate_distortion.point(name, images, back, spec.levels, *sizes), back))
    formats = rate_distortion.FORMATS
    curves = {name: rate_distortion.curve(name, images, spec.levels) for name in formats}
    where = chosen.input if chosen.input is not None else runs[0].experiment.data.name
    print(f"{len(images)} images of {where}, {spec.height}x{spec.width}, {spec.levels} levels")
    rows = []
    for point, _ in found:
        like = [rate_distortion.at_like_psnr(point, points) for points in curves.values()]
        rows += [point, *like]
    print("\n".join(rate_distortion.table(rows)))
    if out is None:
        return
    facts = {"images": len(images), "of": where, "split": chosen.split, "shape": spec.shape}
    rate_distortion.write(out, facts, images, spec.levels, found, curves)
    if not rate_distortion.plots():
        print("matplotlib is not installed (pip install rnngen_jax[plots]): no plot")
    print(out)


def _images(runs: "Sequence[Run]", chosen: Chosen) -> "tuple[np.ndarray, list[np.ndarray | None]]":
    """The images that all runs share, and each run's labels of them.

    Raises:
      UserError: the runs have different images.
    """
    import numpy as np

    each = [read_images(opened, chosen) for opened in runs]
    images, _ = each[0]
    for opened, (own, _) in zip(runs, each, strict=True):
        if not np.array_equal(own, images):
            raise UserError(
                f"--workdir={opened.workdir} has other images than the first of the runs; "
                "give runs on the same data."
            )
    return images, [labels for _, labels in each]
