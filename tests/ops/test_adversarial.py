"""Adversarial losses against the papers' formulas for probabilities, in NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, log_expit

from rnngen_jax.errors import UserError
from rnngen_jax.ops import adversarial
from rnngen_jax.ops.batch import BATCH_AXIS

RNG = np.random.default_rng(1)
REAL, FAKE = RNG.normal(0.5, 2.0, 9), RNG.normal(-0.5, 2.0, 9)
D_REAL, D_FAKE = expit(REAL), expit(FAKE)
VALUE = -np.log(D_REAL) - np.log(1 - D_FAKE)
EXPECTED = {
    "minimax": (VALUE, np.log(1 - D_FAKE)),
    "non_saturating": (VALUE, -np.log(D_FAKE)),
    "least_squares": ((REAL - 1) ** 2 / 2 + FAKE**2 / 2, (FAKE - 1) ** 2 / 2),
    "hinge": (-np.minimum(0, REAL - 1) - np.minimum(0, -FAKE - 1), -FAKE),
    "wasserstein": (FAKE - REAL, -FAKE),
    "relativistic": (-np.log(expit(REAL - FAKE)), -np.log(expit(FAKE - REAL))),
}


def both(loss, real, fake):
    real, fake = jnp.float32(real), jnp.float32(fake)
    return loss.discriminator(real, fake), loss.generator(real, fake)


def test_every_loss_is_tested():
    assert tuple(EXPECTED) == adversarial.LOSSES


@pytest.mark.parametrize("name", adversarial.LOSSES)
def test_values_are_the_papers_for_each_example(name):
    for got, wanted in zip(both(adversarial.make(name), REAL, FAKE), EXPECTED[name], strict=True):
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, wanted, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("name", adversarial.LOSSES)
def test_losses_and_slopes_are_finite_where_probabilities_round_to_0_and_1(name):
    loss = adversarial.make(name)
    far = np.array([-200.0, 200, -200, 200, 0]), np.array([-200.0, 200, 200, -200, 0])
    assert np.isfinite(both(loss, *far)).all()
    for player in loss[:2]:
        slopes = jax.grad(lambda *x, f=player: f(*x).sum(), (0, 1))(*map(jnp.float32, far))
        assert np.isfinite(slopes).all()
    if name == "non_saturating":
        discriminator, generator = both(loss, *far)
        wanted = -log_expit(far[0]) - log_expit(-far[1])
        np.testing.assert_allclose(discriminator, wanted, rtol=1e-6, atol=1e-30)
        np.testing.assert_allclose(generator, -log_expit(far[1]), rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("name", adversarial.LOSSES)
def test_players_pull_apart_and_only_a_relativistic_generator_reads_real_images(name):
    loss = adversarial.make(name)
    scores = jnp.float32(REAL), jnp.float32(FAKE)
    real, fake = jax.grad(lambda *x: loss.discriminator(*x).sum(), (0, 1))(*scores)
    of_real, of_fake = jax.grad(lambda *x: loss.generator(*x).sum(), (0, 1))(*scores)
    wrong_side = np.abs(np.stack(scores)).max(0) < 1  # where every discriminator still learns
    assert wrong_side.any()
    assert (real[wrong_side] < 0).all()
    if name != "least_squares":  # whose scores are pulled back to a label
        assert (fake >= 0).all()
        assert (of_fake < 0).all()
    assert bool(of_real.any()) == loss.reads_real == (name == "relativistic")


@pytest.mark.parametrize("name", ["minimax", "non_saturating", "least_squares"])
def test_smoothing_lowers_the_label_of_real_images_alone(name):
    smooth, hard = adversarial.make(name, 0.1), adversarial.make(name)
    discriminator, generator = both(smooth, REAL, FAKE)
    if name == "least_squares":
        wanted = (REAL - 0.9) ** 2 / 2 + FAKE**2 / 2
        best = 0.9
    else:
        wanted = -0.9 * np.log(D_REAL) - 0.1 * np.log(1 - D_REAL) - np.log(1 - D_FAKE)
        best = np.log(0.9 / 0.1)
    np.testing.assert_allclose(discriminator, wanted, rtol=2e-6)
    np.testing.assert_array_equal(generator, both(hard, REAL, FAKE)[1])
    slope = jax.grad(lambda real: smooth.discriminator(real, jnp.float32(0)))(jnp.float32(best))
    np.testing.assert_allclose(slope, 0, atol=1e-6)


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match=r"config\.model\.loss must be .*got 'hinges'.*'hinge'"):
        adversarial.make("hinges")
    for name in ("hinge", "wasserstein", "relativistic"):
        with pytest.raises(
            UserError, match=rf"label_smoothing must be 0 with loss='{name}'.*got 0\.1"
        ):
            adversarial.make(name, 0.1)
    for amount in (-0.1, 1.0):
        with pytest.raises(UserError, match="label_smoothing"):
            adversarial.make("minimax", amount)


def norm(tree):
    return np.sqrt(sum(np.square(np.float64(leaf)).sum() for leaf in jax.tree.leaves(tree)))


def test_the_adaptive_weight_is_the_ratio_of_the_gradients_norms():
    rng = np.random.default_rng(2)
    one, other = ({"a": rng.normal(size=(3, 2)), "b": rng.normal(size=4)} for _ in range(2))
    found = adversarial.adaptive_weight(one, other)
    np.testing.assert_allclose(found, norm(one) / (norm(other) + 1e-4), rtol=1e-6)
    nothing = jax.tree.map(np.zeros_like, one)
    assert adversarial.adaptive_weight(nothing, one) == 0
    np.testing.assert_allclose(
        adversarial.adaptive_weight({"a": np.full(1, 1e-3)}, nothing), 10, rtol=1e-6
    )
    assert adversarial.adaptive_weight({"a": np.full(1, 7.0)}, nothing) == 1e4
    slope = jax.grad(lambda x: adversarial.adaptive_weight({"a": x}, one))(jnp.ones(3))
    np.testing.assert_array_equal(slope, 0)  # a constant


def test_the_adaptive_weight_is_that_of_the_whole_batch():
    """The mean gradient's norm, and not the mean of the shards' norms."""
    rng = np.random.default_rng(3)
    one, other = (rng.normal(x, 1, (8, 5)).astype(np.float32) for x in (0.2, 2))
    mesh = jax.make_mesh((8,), (BATCH_AXIS,), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.sharding.PartitionSpec(BATCH_AXIS)
    mapped = jax.shard_map(
        lambda a, b: adversarial.adaptive_weight(a[0], b[0])[None],
        mesh=mesh,
        in_specs=spread,
        out_specs=spread,
    )
    found = jax.jit(mapped)(one, other)
    wanted = norm(one.mean(0)) / (norm(other.mean(0)) + 1e-4)
    np.testing.assert_allclose(found, np.full(8, wanted), rtol=1e-5)
    shards = np.mean([norm(a) / norm(b) for a, b in zip(one, other, strict=True)])
    assert abs(shards / wanted - 1) > 0.05
