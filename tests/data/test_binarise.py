"""A static draw depends on an image's position in its source, not on held-out splits."""

import hashlib

import numpy as np
import pytest

from rnngen_jax.data import binarise, load
from rnngen_jax.data.base import SPLITS, DataConfig


def shaded(num):
    """Images `[num, 16, 16]` of all grey levels."""
    return (np.arange(num * 256) % 251).astype(np.uint8).reshape(num, 16, 16)


def digest(images):
    return hashlib.blake2b(images.tobytes(), digest_size=8).hexdigest()


def drawn(name, fraction):
    """The images of each split under static binarisation."""
    config = DataConfig(name=name, binarisation="static", validation_fraction=fraction)
    splits = load(config).splits
    return {split: splits[split].read(np.arange(splits[split].num))[0] for split in SPLITS}


@pytest.mark.parametrize("own", [("train",), ("train", "test"), ("train", "validation"), SPLITS])
def test_an_image_has_one_draw_whatever_is_cut(tmp_path, own):
    path = tmp_path / "x.npz"
    np.savez(path, **{f"{split}_image": shaded(40) for split in own})
    whole = {
        split: binarise.static(shaded(40)[..., None], np.arange(40), split, 256) for split in own
    }
    cuts = [split for split in SPLITS if split not in own]
    for fraction in (0.1, 0.3):
        found = drawn(f"npz:{path}", fraction)
        of_train = np.concatenate([found[split] for split in ("train", *cuts)])
        np.testing.assert_array_equal(of_train, whole["train"])
        for split in own[1:]:
            np.testing.assert_array_equal(found[split], whole[split])


def test_images_that_are_not_cut_keep_the_first_draw(tmp_path):
    """Pinned from the code of draw 1, on whose test images published figures are based."""
    path = tmp_path / "x.npz"
    np.savez(path, train_image=shaded(40), test_image=shaded(12))
    for fraction in (0.1, 0.3):
        found = drawn(f"npz:{path}", fraction)
        assert digest(found["train"][:8]) == "db597caa6619f098"
        assert digest(found["test"][:8]) == "717c9d529ebbe75b"
