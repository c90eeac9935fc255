"""FID: samples in the features of the Inception network, from the user's file of weights.

Heusel et al. (2017, eq. 6) compare 2,048 features of the network that Salimans et al. (2016) used
for the Inception score. Here it is a PyTorch module of torch-fidelity; nothing downloads its
weights. Only the published weights give FID; figures from any other file are named after the file.

The network takes uint8 RGB: grey levels are scaled to 0 to 255, and one channel is repeated to
three. It resizes images to 299x299 itself, as described by `RESIZE`.
"""

import hashlib
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rnngen_jax.config import require
from rnngen_jax.errors import UserError
from rnngen_jax.files import require_file

RESIZE = "bilinear to 299x299 as TensorFlow 1 does, without antialiasing"
PUBLISHED = "6726825d"  # start of the SHA-256 of the weights of 2015-12-05
LARGEST = 2**29  # size limit of a file of weights in bytes; the published one has 91 MiB
BATCH = 50  # images at once, for memory

CHANNELS = (1, 3)


class Inception(NamedTuple):
    """The network with its weights.

    Attributes:
      name: "FID" for the published weights, otherwise such as "inception-1a2b3c4d".
      digest: SHA-256 of the file, in hexadecimal.
      classify: `classify(image) -> (features [B, 2048], logits [B, 1008])`, float32, for uint8
        `[B, H, W, C]` in the data's own levels.
    """

    name: str
    digest: str
    classify: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def open_inception(path: str, levels: int, channels: int) -> Inception:
    """Opens the network with a file of weights.

    Args:
      path: torch-fidelity's weights-inception-2015-12-05-6726825d.pth, or similar weights.
      levels: grey levels of the images.
      channels: channels of the images.

    Raises:
      UserError: a missing file, one without such weights, images that are neither grey nor RGB, or
        torch-fidelity is not installed.
    """
    require(channels in CHANNELS, "the number of channels with --inception", channels, "1 or 3")
    file = Path(path)
    require_file(file, "give torch-fidelity's Inception weights", f"--inception={path}")
    if file.stat().st_size > LARGEST:
        raise UserError(
            f"--inception={path} is larger than {LARGEST >> 20} MiB; give the network's weights."
        )
    try:
        import torch_fidelity.feature_extractor_inceptionv3  # noqa: F401
    except Exception as error:  # a torchvision built for another torch raises a RuntimeError
        raise UserError(
            f"--inception needs torch-fidelity, which does not load here ({_first_line(error)}); "
            "pip install 'rnngen_jax[inception]'."
        ) from error
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    try:
        network = _network(content)
    except Exception as error:  # for an arbitrary file, torch can raise anything
        raise UserError(
            f"--inception={path} does not hold the weights of torch-fidelity's Inception network "
            f"(weights-inception-2015-12-05-{PUBLISHED}.pth)."
        ) from error
    name = "FID" if digest.startswith(PUBLISHED) else f"inception-{digest[:8]}"
    return Inception(name, digest, lambda image: _classified(network, as_rgb(image, levels)))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def as_rgb(image: np.ndarray, levels: int) -> np.ndarray:
    """Images of 0 to `levels` - 1, `[..., 1 or 3]`, as uint8 RGB `[..., 3]` of 0 to 255."""
    spread = np.rint(image * (255 / (levels - 1))).astype(np.uint8)
    return np.broadcast_to(spread, (*image.shape[:-1], 3))


def _network(content: bytes) -> Any:
    """torch-fidelity's module with these weights, which are read as plain arrays only."""
    import torch
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    # The library unpickles its file, so it is given one that holds only the arrays.
    with tempfile.TemporaryDirectory() as folder:
        safe = Path(folder) / "weights.pth"
        torch.save(dict(weights), safe)
        return FeatureExtractorInceptionV3("inception", ["2048", "logits"], str(safe))


def _classified(network: Any, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import torch

    found = []
    with torch.inference_mode():
        for start in range(0, len(image), BATCH):
            part = np.ascontiguousarray(np.moveaxis(image[start : start + BATCH], -1, 1))
            found.append([values.numpy() for values in network(torch.from_numpy(part))])
    features, logits = map(np.concatenate, zip(*found, strict=True))
    return features, logits
