"""Batches over eight devices give the bits of one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnngen_jax import models
from rnngen_jax.data.source import array_split
from rnngen_jax.evaluation import likelihood, sampling, spread
from rnngen_jax.evaluation.batching import split_batches
from rnngen_jax.shapes import ImageSpec

SPEC = ImageSpec(4, 4, levels=5)
RNG = np.random.default_rng(0)
W = RNG.standard_normal((6, 6)).astype(np.float32)
BATCHES = [(3, (np.int32(n), RNG.standard_normal((4, 6)).astype(np.float32))) for n in range(19)]


def apply(params, extra, batch, key):
    number, x = batch
    noise = jax.random.normal(jax.random.fold_in(key, number), x.shape)
    return {"y": jnp.tanh(x @ params["w"]) + noise, "none": None, "sum": x.sum(-1) + extra["b"]}


def run(function, batches):
    params, extra = {"w": jnp.asarray(W)}, {"b": jnp.float32(2)}
    return list(spread.spread(function)(params, extra, iter(batches), jax.random.key(3)))


@pytest.mark.parametrize("num", [1, 2, 8, 19])
def test_every_batch_once_in_order_with_the_bits_of_one_device(num, monkeypatch):
    found = run(apply, BATCHES[:num])
    monkeypatch.setattr(spread, "all_devices", lambda: (jax.devices()[0],))
    wanted = run(apply, BATCHES[:num])
    assert [count for count, _ in found] == [3] * num
    for (_, one), (_, other) in zip(found, wanted, strict=True):
        assert isinstance(one["y"], np.ndarray)
        assert one["none"] is None
        jax.tree.map(np.testing.assert_array_equal, one, other)
    numbers = [each["sum"] for _, each in found]
    for n, numbers_of_one in enumerate(numbers):
        np.testing.assert_allclose(numbers_of_one, BATCHES[n][1][1].sum(-1) + 2, rtol=1e-5)


def test_no_more_devices_than_batches_and_no_batch_read_twice(monkeypatch):
    used, make_mesh = [], spread.make_mesh
    monkeypatch.setattr(spread, "make_mesh", lambda each: used.append(len(each)) or make_mesh(each))
    read = []

    def reading(batches):
        for batch in batches:
            read.append(int(batch[1][0]))
            yield batch

    def other(params, extra, batch, key):
        return batch[1] @ params["w"]

    assert len(run(other, reading(BATCHES[:3]))) == 3
    assert set(used) == {3}
    assert read == [0, 1, 2]
    assert run(other, []) == []


def test_what_stops_the_reading_stops_all():
    def stopping():
        yield from BATCHES[:9]
        raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        run(apply, stopping())


def test_a_models_scores_and_samples_are_those_of_one_device(monkeypatch):
    model = models.build("row_rnn", {"features": 5, "input_features": 4, "dropout": 0.0}, SPEC)
    params, extra = model.init(jax.random.key(0))
    images = RNG.integers(0, 5, (37, 4, 4, 1)).astype(np.uint8)
    score = likelihood.scorer(model, lambda batch, key: batch)
    draw = sampling.sampler(model)

    def both():
        batches = split_batches(array_split(images, None), 5)
        nats = likelihood.nats_of_each(score, params, extra, batches)
        return nats, draw(params, extra, jax.random.key(1), 150, None, 0.9)

    eight = both()
    monkeypatch.setattr(spread, "all_devices", lambda: (jax.devices()[0],))
    one = both()
    assert eight[0].shape == (37,)
    np.testing.assert_array_equal(eight[0], one[0])
    np.testing.assert_array_equal(eight[1], one[1])
