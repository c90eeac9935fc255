"""Errors of predicted frames, in each protocol's terms, against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnngen_jax.data.source import array_split
from rnngen_jax.errors import UserError
from rnngen_jax.evaluation import forecasting
from rnngen_jax.evaluation.batching import split_batches
from rnngen_jax.models.base import Forecast, Model, Sequential
from rnngen_jax.shapes import ImageSpec

SPEC = ImageSpec(8, 7, levels=5, frames=6)
FRAMES = np.random.default_rng(0).integers(0, 5, (11, *SPEC.shape)).astype(np.uint8)
CONTEXT, HORIZON = 2, 3


def toy(stochastic=False, likelihood=True):
    """Half of the last given frame's light, or for a stochastic model a random share of it."""

    def forecast(params, extra, key, context, horizon, label, temperature, fed):
        del params, extra, label
        assert (fed, temperature) == ("mean", 1.0)
        share = jax.random.uniform(key, (len(context), 1, 1, 1, 1)) if stochastic else 0.5
        last = context[:, -1:].astype(jnp.float32) / (SPEC.levels - 1)
        mean = share * jnp.repeat(last, horizon, axis=1)
        return Forecast(jnp.zeros_like(mean, jnp.uint8), mean)

    def teacher_forced(params, extra, batch, key):
        before = batch["frames"].astype(jnp.float32) / (SPEC.levels - 1)
        return jnp.concatenate([jnp.zeros_like(before[:, :1]), before[:, :-1]], axis=1)

    def log_probs(params, extra, batch, key):
        return -batch["frames"].astype(jnp.float32).sum((2, 3, 4))

    sequential = Sequential(
        log_probs if likelihood else None, forecast, teacher_forced, stochastic=stochastic
    )
    return Model("toy", SPEC, False, lambda key: ({}, {}), {}, sequential=sequential)


def measured(model, size=4, protocol="strict"):
    lengths = CONTEXT, HORIZON
    look = forecasting.looker(model, lambda batch, key: batch, lengths, protocol)
    batches = split_batches(array_split(FRAMES, None), size)
    return forecasting.measure(look, {}, {}, batches, lengths)


TRUTH = np.float64(FRAMES[:, CONTEXT : CONTEXT + HORIZON]) / 4
LAST = np.float64(FRAMES[:, CONTEXT - 1 : CONTEXT]) / 4
MADE = np.repeat(LAST / 2, HORIZON, axis=1)
FORCED = np.float64(FRAMES[:, 1:4]) / 4


def summed(x):
    return x.sum((2, 3, 4))


@pytest.mark.parametrize("size", [4, 11])
def test_each_figure_is_its_definition(size):
    """Whatever the size of a batch, and with the last one that is not full."""
    found = measured(toy(), size)
    each = {
        "mse": summed((MADE - TRUTH) ** 2),
        "mse_copy_last": summed((LAST - TRUTH) ** 2),
        "mse_teacher_forced": summed((FORCED - TRUTH) ** 2),
        "psnr": -10 * np.log10(summed((MADE - TRUTH) ** 2) / 56),
        "psnr_teacher_forced": -10 * np.log10(summed((FORCED - TRUTH) ** 2) / 56),
        "nats_per_frame": np.float64(FRAMES).sum((2, 3, 4)),
    }
    for ending, made in (("", MADE), ("_teacher_forced", FORCED)):
        # The bounds are those of float32, whose 1 - 1e-7 is 1 - 2**-23.
        p = np.clip(np.float32(made), 1e-7, np.float32(1 - 1e-7)).astype(np.float64)
        each[f"soft_cross_entropy{ending}"] = summed(
            -TRUTH * np.log(p) - (1 - TRUTH) * np.log(1 - p)
        )
    assert set(found.means) == {*each, "ssim", "ssim_teacher_forced"}
    for name, rows in each.items():
        np.testing.assert_allclose(found.means[name], rows.mean(0), rtol=1e-4)
        error = rows.std(0, ddof=1) / np.sqrt(11)
        np.testing.assert_allclose(found.errors[name], error, rtol=1e-3)
    metrics = found.metrics()
    assert metrics["mse"] == pytest.approx(each["mse"].mean(), rel=1e-5)
    own = each["mse"].mean(1).std(ddof=1) / np.sqrt(11)
    assert metrics["mse_error"] == pytest.approx(own, rel=1e-4)
    assert "nats_per_frame" not in metrics  # the likelihood of a sequence is reported beside
    stored = found.arrays()
    assert (stored["context"], stored["horizon"], len(stored["nats_per_frame"])) == (2, 3, 6)


def test_protocols_differ_in_their_own_terms_alone():
    strict, openstl, predrnn = (measured(toy(), 11, p) for p in ("strict", "openstl", "predrnn"))
    assert openstl.metrics()["mse"] == strict.metrics()["mse"]
    assert openstl.metrics()["ssim"] > strict.metrics()["ssim"] + 0.01  # a range of 2
    assert predrnn.metrics()["mse"] == strict.metrics()["mse"]  # bytes are for the others alone
    bytes_of = [np.uint8(255 * x).astype(np.float64) / 255 for x in (MADE, TRUTH)]
    psnr = -10 * np.log10(summed((bytes_of[0] - bytes_of[1]) ** 2) / 56)
    np.testing.assert_allclose(predrnn.means["psnr"], psnr.mean(0), rtol=1e-5)
    assert abs(psnr.mean() - strict.metrics()["psnr"]) > 1e-3
    assert predrnn.metrics()["ssim"] == pytest.approx(strict.metrics()["ssim"], abs=2e-3)


def test_only_openstl_has_the_squared_error_of_values_out_of_range():
    made = np.float32(MADE * 3 - 0.2)
    for protocol in forecasting.PROTOCOLS:
        found = forecasting.compared(jnp.array(made), jnp.array(TRUTH), SPEC, protocol)
        inside = np.clip(made, 0, 1)
        wanted = summed(((made if protocol == "openstl" else inside) - TRUTH) ** 2)
        np.testing.assert_allclose(found["mse"], wanted, rtol=1e-5)
        if protocol != "predrnn":
            psnr = -10 * np.log10(summed((inside - TRUTH) ** 2) / 56)
            np.testing.assert_allclose(found["psnr"], psnr, rtol=1e-5)


def test_a_stochastic_model_has_the_mean_and_the_best_of_its_futures():
    found = measured(toy(stochastic=True), 11)
    metrics = found.metrics()
    # A future depends on the sequence, not on its batch or its place there.
    other = measured(toy(stochastic=True), 4).means
    for name, mean in found.means.items():
        np.testing.assert_allclose(other[name], mean, rtol=1e-5)
    assert metrics["mse_best_of_k"] < metrics["mse"] - 0.5
    # The best share of the last frame for each sequence bounds what any draw can reach.
    share = (summed(LAST * TRUTH).sum(1) / summed(LAST**2 * np.ones_like(TRUTH)).sum(1)).clip(0, 1)
    best = summed((share[:, None, None, None, None] * LAST - TRUTH) ** 2).mean()
    assert metrics["mse_best_of_k"] >= best - 1e-4


def test_without_a_likelihood_there_are_no_nats():
    assert "nats_per_frame" not in measured(toy(likelihood=False), 11).means


def test_a_model_of_still_images_is_refused():
    model = toy()._replace(sequential=None)
    with pytest.raises(UserError, match="toy is no model of sequences"):
        forecasting.looker(model, lambda batch, key: batch, (2, 3))
