"""Restore the images that `compress` packed, bit for bit.

  rnngen decompress --workdir=runs/digits --input=digits.rnn --out=digits.npz
  rnngen decompress --workdir=runs/digits --input=scans.rnn --out=scans/

--workdir, --checkpoint and --seed_index must name the model that compressed the file. --out is a
file that ends in .npz, for the array `image` of grey levels (uint8 [N, H, W, C], with `levels`, and
`label` if labels were stored), or a new or empty folder, for PNG files under their original names,
or numbered. Nothing is written until all pixels are decoded and their checksums verified.
Several batches are decoded on several devices at once, in one process.
"""

import os
import time
from typing import TYPE_CHECKING

from rnngen_jax import paths
from rnngen_jax.commands import flags
from rnngen_jax.commands.base import bar, open_run, require_one_process
from rnngen_jax.commands.flags import Which
from rnngen_jax.config import require
from rnngen_jax.errors import RunError, UserError

if TYPE_CHECKING:
    import numpy as np

    from rnngen_jax.evaluation.codec import Coder
    from rnngen_jax.evaluation.container import Container
    from rnngen_jax.runs import Run

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
    _check_model(opened, content, input)

    import numpy as np

    from rnngen_jax.evaluation import codec, pictures

    start = time.perf_counter()
    size = content.batch_size
    devices = codec.devices_for(content.num, size, len(content.streams))
    given = opened.model, opened.params, opened.extra, size, devices, bar
    coder = codec.coder(*given, coarse=content.coarse)
    compiled = time.perf_counter()
    images, labels = _decoded(coder, content, input)
    seconds = time.perf_counter() - compiled
    if folder:
        pictures.write_singles(out, images, content.levels, content.names)
    else:
        arrays = {opened.spec.key: images, "levels": np.int32(content.levels)}
        pictures.write_npz(out, arrays if labels is None else {**arrays, "label": labels})
    print(
        f"{content.num} images, {content.num / seconds:,.1f} images/s, "
        f"after {compiled - start:.1f} s of compiling"
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


def _check_model(opened: "Run", content: "Container", input: str) -> None:
    """Raises a `UserError` unless the file was made with the run's model."""
    from rnngen_jax.evaluation import codec, coding_steps

    coding_steps.stages_of(opened.model)
    spec = opened.model.spec
    images = f"{content.shape} with {content.levels} levels"
    if (content.shape, content.levels) != (spec.shape, spec.levels):
        raise UserError(
            f"{input} holds images of shape {images}; those of the model in {opened.workdir} are "
            f"{spec.shape} with {spec.levels} levels. Give the --workdir it was made with."
        )
    mine = opened.digest
    if content.model != mine:
        raise UserError(
            f"{input} was made with the model {content.model.hex()}; step {opened.step} of "
            f"{opened.workdir} is {mine.hex()}. Give the --workdir, --checkpoint and --seed_index "
            "it was made with."
        )
    largest = codec.largest_batch(opened.model, opened.params, opened.extra, content.num)
    fits = content.labelled == codec.labelled(opened.model) and (
        not content.coarse or codec.coarse(opened.model)
    )
    if content.batch_size > largest or not fits:
        raise UserError(f"{input} is damaged: this model would not write such a file.")


def _decoded(
    coder: "Coder", content: "Container", input: str
) -> "tuple[np.ndarray, np.ndarray | None]":
    """Decodes the images and labels of a file.

    Raises:
      UserError: this model did not write the stream.
      RunError: it may have, but elsewhere, where its probabilities differed.
    """
    from rnngen_jax.evaluation import codec

    first = content.arithmetic is None  # version 1, which stores no fingerprint of probabilities
    try:
        each = None if first else content.pixels
        images, labels = coder.decode(content.streams, content.num, each)
        if first and (codec.digest(images, labels),) != content.pixels:
            raise codec.DecodingError(codec.OTHER_PIXELS)
    except codec.DecodingError as error:
        here, same = codec.maker(), content.arithmetic == coder.arithmetic
        if content.maker != here and not same:
            raise RunError(
                f"{input} is intact, but {error}, as floating point differs between machines and "
                f"versions: it was made with JAX {content.maker}, and this is JAX {here}. "
                "Decompress it where it was made; nothing was written."
            ) from None
        doubt = "" if same else ", or made on another kind of processor"
        raise UserError(
            f"{input}: {error}. It was forged, or damaged before its checksum was made{doubt}; "
            "nothing was written."
        ) from None
    return images, labels
