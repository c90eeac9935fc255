import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnngen_jax.errors import UserError
from rnngen_jax.evaluation import sampling
from rnngen_jax.models.base import Completion, Model
from rnngen_jax.shapes import ImageSpec

SPEC = ImageSpec(2, 2, 1, levels=256, classes=3)


def toy_model(conditional=False, **changes):
    """Uniform noise; the first pixel is the label, the second the temperature times ten."""

    def sample(params, extra, key, num, label=None, temperature=1.0):
        key = jax.random.fold_in(key, num)  # as for a generator whose draws depend on the shape
        images = jax.random.randint(key, (num, *SPEC.shape), 0, 256).astype(jnp.uint8)
        if label is not None:
            images = images.at[:, 0, 0, 0].set(label.astype(jnp.uint8))
        tenths = jnp.round(jnp.asarray(temperature) * 10).astype(jnp.uint8)
        return images.at[:, 0, 1, 0].set(tenths)

    def complete(params, extra, key, image, known, label=None, temperature=1.0, candidates=1):
        drawn = sample(params, extra, key, len(image), label, temperature)
        effective = jnp.full(len(image), candidates, jnp.float32)
        return Completion(jnp.where(known[..., None], image, drawn), effective)

    fields = {"sample": sample, "complete": complete, **changes}
    return Model("toy", SPEC, conditional, lambda key: ({}, {}), {}, **fields)


@pytest.mark.parametrize("num", [1, 63, 64, 65, 200])
def test_a_small_draw_is_the_start_of_a_large_one(num):
    draw = sampling.sampler(toy_model())
    large = draw({}, {}, jax.random.key(0), 300, None, 1.0)
    small = draw({}, {}, jax.random.key(0), num, None, 1.0)
    assert small.shape == (num, *SPEC.shape)
    np.testing.assert_array_equal(small, large[:num])
    assert len({image.tobytes() for image in large}) > 290
    assert (draw({}, {}, jax.random.key(1), num, None, 1.0) != small).any()


def test_labels_and_temperature_reach_each_image():
    labels = sampling.cycled(toy_model(conditional=True), 100)
    np.testing.assert_array_equal(labels, np.arange(100) % 3)
    images = sampling.sampler(toy_model())({}, {}, jax.random.key(0), 100, labels, 0.7)
    np.testing.assert_array_equal(images[:, 0, 0, 0], labels)
    assert (images[:, 0, 1, 0] == 7).all()
    assert sampling.cycled(toy_model(conditional=False), 100) is None


def test_completions_keep_what_is_known():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (70, *SPEC.shape), dtype=np.uint8)
    known = rng.random((70, 2, 2)) < 0.5
    labels = np.arange(70, dtype=np.int32) % 3
    draw = sampling.completer(toy_model(), candidates=3)
    got, effective, moved = draw({}, {}, jax.random.key(0), images, known, labels, 0.5)
    np.testing.assert_array_equal(effective, np.full(70, 3.0))
    assert moved is None
    assert got.shape == images.shape
    np.testing.assert_array_equal(got[known], images[known])
    np.testing.assert_array_equal(got[:, 0, 0, 0][~known[:, 0, 0]], labels[~known[:, 0, 0]])
    unknown = ~known[:, 1, 1]
    assert (got[:, 1, 1, 0][unknown] != images[:, 1, 1, 0][unknown]).mean() > 0.9


def test_what_a_model_cannot_do_is_said():
    with pytest.raises(UserError, match="toy cannot draw samples"):
        sampling.sampler(toy_model(sample=None))
    with pytest.raises(UserError, match="toy cannot complete images"):
        sampling.completer(toy_model(complete=None))
