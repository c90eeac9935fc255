"""The Inception network from a user's file, against torch-fidelity's own call if installed."""

import hashlib
import pickle
import sys

import numpy as np
import pytest

from rnngen_jax.errors import UserError
from rnngen_jax.evaluation import inception

RNG = np.random.default_rng(0)


class Harmful:
    """Pickled, it writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize(
    ("levels", "image", "expected"),
    [
        (2, [0, 1], [0, 255]),
        (17, [0, 5, 16], [0, 80, 255]),
        (256, [0, 7, 255], [0, 7, 255]),
    ],
)
def test_grey_levels_are_spread_and_repeated(levels, image, expected):
    found = inception.as_rgb(np.uint8(image)[:, None], levels)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.repeat(np.uint8(expected)[:, None], 3, axis=1))


def test_colours_stay_in_their_order():
    image = RNG.integers(0, 256, (2, 4, 5, 3), np.uint8)
    np.testing.assert_array_equal(inception.as_rgb(image, 256), image)


def test_what_is_no_file_of_weights_is_said(tmp_path, monkeypatch):
    large = tmp_path / "large.pth"
    with large.open("wb") as file:
        file.truncate(inception.LARGEST + 1)
    some = tmp_path / "some.pth"
    some.write_bytes(b"weights")
    for path, channels, expected in (
        (tmp_path / "none.pth", 1, "there is no such file; give torch-fidelity's"),
        (tmp_path, 3, "is a folder, not a file"),
        (large, 1, "is larger than 512 MiB"),
        (some, 2, "channels with --inception must be 1 or 3, got 2"),
    ):
        with pytest.raises(UserError, match=expected):
            inception.open_inception(str(path), 256, channels)
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(UserError, match=r"does not load here .*pip install 'rnngen_jax\[incept"):
        inception.open_inception(str(some), 256, 1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of random weights for the network, and that network."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("torch_fidelity")
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "load", lambda *args, **how: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        torch.manual_seed(0)
        network = FeatureExtractorInceptionV3("inception", ["2048", "logits"], "none")
    torch.save(network.state_dict(), path)
    return path, network


def test_features_are_the_librarys(weights):
    import torch

    path, network = weights
    opened = inception.open_inception(str(path), 17, 1)
    image = RNG.integers(0, 17, (inception.BATCH + 2, 8, 8, 1), np.uint8)
    rgb = np.repeat(np.rint(image * 255 / 16).astype(np.uint8), 3, axis=-1).transpose(0, 3, 1, 2)
    wanted = network(torch.tensor(rgb[-4:]))
    for found, want in zip(opened.classify(image), wanted, strict=True):
        assert len(found) == len(image)
        np.testing.assert_allclose(found[-4:], want.numpy(), rtol=1e-3, atol=1e-4)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (opened.name, opened.digest) == (f"inception-{digest[:8]}", digest)


def test_fid_is_what_the_published_weights_give(weights, monkeypatch):
    digest = hashlib.sha256(weights[0].read_bytes()).hexdigest()
    monkeypatch.setattr(inception, "PUBLISHED", digest[:8])
    assert inception.open_inception(str(weights[0]), 256, 3).name == "FID"


def test_a_file_of_anything_else_is_refused_and_not_run(weights, tmp_path):
    import torch

    written = tmp_path / "written"
    files = {
        "text": b"weights",
        "pickle": pickle.dumps(Harmful(written)),
        "cut": weights[0].read_bytes()[:100_000],
    }
    torch.save({"fc.bias": torch.zeros(3)}, tmp_path / "other")
    torch.save({"fc.bias": Harmful(written)}, tmp_path / "harmful")
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for name in (*files, "other", "harmful"):
        with pytest.raises(UserError, match="does not hold the weights of torch-fidelity's"):
            inception.open_inception(str(tmp_path / name), 256, 1)
    assert not written.exists()
