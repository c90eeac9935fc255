"""Differentiable augmentation against NumPy, image by image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import stats

from rnngen_jax import keys
from rnngen_jax.errors import UserError
from rnngen_jax.ops import augment

RNG = np.random.default_rng(3)
B, H, W, C = 64, 16, 9, 3
IMAGES = RNG.uniform(-1, 1, (B, H, W, C)).astype(np.float32)
EACH = jax.random.split(jax.random.key(0), B)
POLICY = "color,translation,cutout,flip"
DOWN, ACROSS = 2, 1  # an eighth of 16 and of 9


def changed(policy, images=IMAGES, each=EACH):
    return np.asarray(jax.jit(augment.augment, static_argnums=2)(images, each, policy))


def shifts(image):
    """All translations of an image by whole pixels, by shift."""
    wide = np.full((H + 2 * DOWN, W + 2 * ACROSS, C), -1.0, np.float32)
    wide[DOWN:-DOWN, ACROSS:-ACROSS] = image
    return {
        (y, x): wide[DOWN - y : DOWN - y + H, ACROSS - x : ACROSS - x + W]
        for y in range(-DOWN, DOWN + 1)
        for x in range(-ACROSS, ACROSS + 1)
    }


def cuts(image):
    """All results of cutting out a rectangle of 8 by 5 around any point."""
    made = {}
    for y in range(H + 1):  # 8 is even, so its centre lies between rows; 5 is odd
        for x in range(W):
            out = image.copy()
            out[max(y - 4, 0) : y + 4, max(x - 2, 0) : x + 3] = 0
            made[y, x] = out
    return made


def test_colours_are_those_of_numpy_and_spread_over_their_ranges():
    results = changed("color")
    drawn = []
    for image, result in zip(np.float64(IMAGES), np.float64(results), strict=True):
        # Three values determine the result: they are estimated, and then must reproduce all of it.
        brightness = result.mean() - image.mean()
        image = image + brightness
        grey, mean = image.mean(-1, keepdims=True), image.mean()
        result_grey = result.mean(-1, keepdims=True)
        contrast = ((result_grey - mean) * (grey - mean)).sum() / ((grey - mean) ** 2).sum()
        within = ((result - result_grey) * (image - grey)).sum() / ((image - grey) ** 2).sum()
        saturation = within / contrast
        image = (image - grey) * saturation + grey
        image = (image - image.mean()) * contrast + image.mean()
        np.testing.assert_allclose(result, image, atol=2e-6)
        drawn.append((brightness, saturation, contrast))
    for values, low, high in zip(np.transpose(drawn), (-0.5, 0, 0.5), (0.5, 2, 1.5), strict=True):
        share = (values - low) / (high - low)
        assert share.min() > -1e-5
        assert share.max() < 1 + 1e-5
        assert share.min() < 0.15
        assert share.max() > 0.85
        assert abs(share.mean() - 0.5) < 4 * np.sqrt(1 / 12 / B)
    assert np.abs(np.corrcoef(np.transpose(drawn)) - np.eye(3)).max() < 0.5


def test_one_channel_has_no_saturation():
    grey = IMAGES[..., :1]
    result = np.float64(changed("color", grey))
    centred = grey - grey.mean((1, 2, 3), keepdims=True)
    ratio = (result - result.mean((1, 2, 3), keepdims=True)) / centred
    np.testing.assert_allclose(ratio[np.abs(centred) > 0.1].reshape(-1).min(), 0.5, atol=0.1)
    assert (ratio.std((1, 2, 3)) < 1e-2).all()


@pytest.mark.parametrize(("name", "made"), [("translation", shifts), ("cutout", cuts)])
def test_places_are_exact_and_equally_likely(name, made):
    image = IMAGES[0]
    candidates = {result.tobytes(): choice for choice, result in made(image).items()}
    assert len(candidates) == {"translation": 5 * 3, "cutout": 17 * 9}[name]
    num = 20 * len(candidates)
    each = jax.random.split(jax.random.key(1), num)
    results = changed(name, np.broadcast_to(image, (num, H, W, C)), each)
    found = [candidates[result.tobytes()] for result in results]  # KeyError for any other image
    counts = [found.count(choice) for choice in candidates.values()]
    assert stats.chisquare(counts).pvalue > 0.001


def test_a_coin_decides_over_mirroring():
    results = changed("flip")
    same = (results == IMAGES).all((1, 2, 3))
    mirrored = (results == IMAGES[:, :, ::-1]).all((1, 2, 3))
    assert (same ^ mirrored).all()
    assert 16 < same.sum() < 48


def test_the_policys_order_counts_and_its_parts_do_not_disturb_each_other():
    np.testing.assert_array_equal(changed(""), IMAGES)
    first = changed("color")
    np.testing.assert_allclose(changed("color,cutout"), changed("cutout", first), atol=1e-6)
    # The uncovered border is darkest, unless its colour changes afterwards.
    dark, lit = changed("color,translation"), changed("translation,color")
    assert np.abs(dark - lit).max() > 0.1


def test_an_image_and_its_key_make_the_result():
    whole = changed(POLICY)
    order = RNG.permutation(B)
    np.testing.assert_array_equal(changed(POLICY, IMAGES[order], EACH[order]), whole[order])
    again = changed(POLICY, np.broadcast_to(IMAGES[:1], IMAGES.shape), EACH)
    assert len(np.unique(again.reshape(B, -1), axis=0)) == B


def test_gradients_flow():
    with jax.enable_x64(True):
        images = jnp.asarray(IMAGES[:2], jnp.float64)
        function = jax.jit(lambda x: augment.augment(x, EACH[:2], POLICY))
        check_grads(function, (images,), 1, modes=["rev"])
    slope = jax.grad(lambda x: augment.augment(x, EACH, "cutout").sum())(jnp.asarray(IMAGES))
    np.testing.assert_array_equal(slope, changed("cutout") != 0)


def test_policies():
    for policy in ("", "color", POLICY):
        augment.require_policy(policy)
    with pytest.raises(
        UserError, match=r"config\.model\.augmentation must be .*got 'colour'.*'color'"
    ):
        augment.require_policy("cutout,colour")
    for policy in ("color,", "color, cutout", "color,color"):
        with pytest.raises(UserError, match=r"config\.model\.augmentation"):
            augment.require_policy(policy)


def test_each_part_draws_from_a_key_of_its_own_name():
    for name in augment.AUGMENTATIONS:
        own = jax.vmap(lambda key, name=name: keys.named(key, name))(EACH)
        wanted = jax.jit(jax.vmap(getattr(augment, name)))(IMAGES, own)
        np.testing.assert_array_equal(changed(name), wanted)
