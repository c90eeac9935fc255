"""FID: samples in the features of the Inception network, from a file of weights that the user has.

Heusel et al. (2017, eq. 6) compare 2,048 features of the network that Salimans et al. (2016) took
for the Inception score. It is a PyTorch module of torch-fidelity here; nothing downloads its
weights. FID is what the published weights give; with any other file a figure is named after it.

The network is told uint8 RGB: grey levels are spread over 0 to 255, and one channel is repeated to
three. It brings images to 299 by 299 pixels itself, as said in `RESIZE`.
"""

import hashlib
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rnngen_jax.errors import UserError
from rnngen_jax.files import require_file

RESIZE = "bilinear to 299x299 as TensorFlow 1 does, without antialiasing"
PUBLISHED = "6726825d"  # how the SHA-256 of the weights of 2015-12-05 begins
LARGEST = 2**29  # bytes of a file of weights; the published ones are 91 MiB
BATCH = 50  # images at once, for memory

CHANNELS = (1, 3)


class Inception(NamedTuple):
    """The network with its weights.

    Attributes:
      name: "FID" for the published weights, else such as "inception-1a2b3c4d".
      digest: SHA-256 of the file, in hexadecimal.
      classify: `classify(image) -> (features [B, 2048], logits [B, 1008])`, float32, of uint8
        `[B, H, W, C]` in the data's own levels.
    """

    name: str
    digest: str
    classify: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def open_inception(path: str, levels: int, channels: int) -> Inception:
    """The network of a file of weights.

    Args:
      path: what torch-fidelity publishes as weights-inception-2015-12-05-6726825d.pth, or the like.
      levels: grey levels of the images.
      channels: of the images.

    Raises:
      UserError: no such file, one that is something else, images that are neither grey nor RGB, or
        torch-fidelity is not installed.
    """
    if channels not in CHANNELS:
        raise UserError(f"--inception takes images of 1 or 3 channels; these have {channels}.")
    file = Path(path)
    require_file(file, "give torch-fidelity's Inception weights", f"--inception={path}")
    if file.stat().st_size > LARGEST:
        raise UserError(f"--inception={path} is larger than {LARGEST >> 20} MiB; no such weights.")
    try:
        import torch_fidelity.feature_extractor_inceptionv3  # noqa: F401
    except Exception as error:  # torchvision of another build than torch's raises a RuntimeError
        raise UserError(
            f"--inception needs torch-fidelity, which does not load here ({_first_line(error)}); "
            "pip install 'rnngen_jax[inception]'."
        ) from error
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    try:
        network = _network(content)
    except Exception as error:  # of a file that is anything, torch raises anything
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
    """torch-fidelity's module with these weights, which are read as arrays and nothing else."""
    import torch
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    # The library unpickles what it is given: it gets a file of the arrays alone.
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
