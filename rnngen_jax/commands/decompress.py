"""Restore the images that `compress` packed: bit for bit, or from their codes.

  rnngen decompress --workdir=runs/digits --input=digits.rnn --out=digits.npz
  rnngen decompress --workdir=runs/digits --input=scans.rnn --out=scans/

--workdir, --checkpoint and --seed_index must name the model that compressed the file. --out is a
file that ends in .npz, for the array `image` of grey levels (uint8 [N, H, W, C], with `levels`, and
`label` if labels were stored), or a new or empty folder, for PNG files under their original names,
or numbered. Nothing is written until all pixels are decoded and their checksums verified.
Several batches are decoded on several devices at once, in one process.

What `compress --lossy` packed are codes. They come back exactly and, as images, the expected values
of the decoder's distribution given them, at the nearest grey levels: nothing is drawn, so the
images are the same each time, and no others have a smaller expected squared error. On another kind
of machine a value may be rounded to the next level.
"""

import os

from rnngen_jax import paths
from rnngen_jax.commands import flags
from rnngen_jax.commands.base import open_run, require_one_process
from rnngen_jax.commands.flags import Which
from rnngen_jax.config import require
from rnngen_jax.errors import UserError

FLAGS = (
    flags.RUN,
    flags.INPUT._replace(help="FILE.rnn", required=True),
    flags.OUT._replace(default="images.npz", help="FILE.npz or FOLDER/"),
)


def run(which: Which, input: str, out: str) -> None:
    """Decompresses images.

    Args:
      which: the run and checkpoint.
      input: file that `compress` wrote.
      out: npz file or folder to write.

    Raises:
      UserError: an invalid flag; no such run, checkpoint or seed; a model other than the file's; or
        a file that is damaged, forged or of a newer version.
      RunError: the pixels cannot be decoded here, as floating point differs from the machine that
        coded them.
    """
    folder = _is_folder(out)
    from rnngen_jax.evaluation import container

    content = container.read(input)
    opened = open_run(which)
    require_one_process("decompress")

    import numpy as np

    from rnngen_jax.evaluation import pictures
    from rnngen_jax.runs import coding

    done = coding.decompress(opened, content, input)
    if folder:
        pictures.write_singles(out, done.images, content.levels, content.names)
    else:
        arrays = {opened.spec.key: done.images, "levels": np.int32(content.levels)}
        labels = {} if done.labels is None else {"label": done.labels}
        pictures.write_npz(out, {**arrays, **labels})
    print(
        f"{content.num} images, {content.num / done.decoding:,.1f} images/s, "
        f"after {done.compiling:.1f} s of compiling"
    )
    print(out)


def _is_folder(out: str) -> bool:
    """Whether --out is a folder; raises a `UserError` if it is neither that nor an npz."""
    path = paths.of(out)
    if path.suffix.lower() == ".npz" and not path.is_dir():
        return False
    fits = out != "" and (out.endswith(("/", os.sep)) or path.is_dir() or not path.suffix)
    require(fits, "--out", out, "a file that ends in .npz, or a folder")
    if path.is_file():
        raise UserError(f"--out={out} is a file, not a folder; give another name.")
    if path.is_dir() and any(path.iterdir()):
        raise UserError(f"--out={out} is not empty; give a new or an empty folder.")
    return True
