"""One device, eight with jit and eight with pmap: the same numbers."""

import functools
import subprocess
import sys
import warnings

import jax
import numpy as np
import pytest
import training_toys as toys

from rnngen_jax.data.feed import fetch, make_feed
from rnngen_jax.errors import UserError
from rnngen_jax.training.config import OptimizerConfig
from rnngen_jax.training.optimizers import make_optimizer
from rnngen_jax.training.parallel import make_parallel
from rnngen_jax.training.state import create
from rnngen_jax.training.step import train_step

STEPS, BATCH = 12, 16
PLACES = {"one": ("jit", 1), "jit": ("jit", 8), "pmap": ("pmap", 8)}


def make(model, kind, devices, name="sgd", compute_dtype="float32"):
    config = OptimizerConfig(name=name, learning_rate=0.1)
    optimizers = {player: make_optimizer(config) for player in model.losses}
    parallel = make_parallel(
        kind,
        train_step(model, optimizers, 0.9, toys.jitter, compute_dtype=compute_dtype),
        fetch,
        0,
        BATCH,
        jax.devices()[:devices],
    )
    return parallel, jax.jit(functools.partial(create, model, optimizers, 0, True))()


def train(model, kind, devices, name, placement="device", compute_dtype="float32"):
    parallel, state = make(model, kind, devices, name, compute_dtype)
    feed = make_feed(toys.split(), BATCH, 0, placement)
    state, resident = parallel.place(state), parallel.place_resident(feed.resident)
    losses = []
    for chunk in feed.chunks([(0, 4), (4, 8), (8, 12)], 0, 1):
        placed = parallel.place_chunk(chunk)
        call = parallel.compiled(state, resident, placed)
        state, metrics = call(state, resident, placed)
        losses.append(parallel.host(metrics))
    joined = {k: np.concatenate([m[k] for m in losses]) for k in losses[0]}
    return joined, parallel.host(state)


@pytest.mark.parametrize(
    ("model", "name"), [("autoencoder", "sgd"), ("autoencoder", "adam"), ("adversaries", "sgd")]
)
def test_one_device_jit_and_pmap_agree(model, name):
    model = getattr(toys, model)()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # neither way may be on its way out of JAX
        results = {place: train(model, *how, name) for place, how in PLACES.items()}
    one, after_one = results["one"]
    player = next(iter(model.losses))
    assert len(one[f"loss/{player}"]) == STEPS
    assert np.ptp(one[f"loss/{player}"]) > 1e-3
    for place in ("jit", "pmap"):
        metrics, after = results[place]
        assert metrics.keys() == one.keys()
        for metric, values in one.items():
            np.testing.assert_allclose(
                metrics[metric], values, rtol=1e-5, atol=1e-6, err_msg=f"{place} {metric}"
            )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
            after,
            after_one,
        )


def test_one_device_jit_and_pmap_agree_in_bfloat16():
    found = {
        place: train(toys.autoencoder(), *how, "sgd", compute_dtype="bfloat16")[0]["loss/model"]
        for place, how in PLACES.items()
    }
    exact = train(toys.autoencoder(), *PLACES["one"], "sgd")[0]["loss/model"]
    assert abs(found["one"] / exact - 1).max() > 1e-4  # so much does rounding change
    for place in ("jit", "pmap"):
        np.testing.assert_allclose(found[place], found["one"], rtol=1e-5, err_msg=place)


@pytest.mark.parametrize("place", ["jit", "pmap"])
def test_streaming_gives_the_same_as_resident(place):
    model = toys.autoencoder()
    resident, _ = train(model, *PLACES[place], "adam")
    streamed, _ = train(model, *PLACES[place], "adam", "stream")
    np.testing.assert_allclose(streamed["loss/model"], resident["loss/model"], rtol=1e-6)


@pytest.mark.parametrize("place", PLACES)
def test_the_placed_state_is_donated_and_the_given_one_stays(place):
    parallel, state = make(toys.autoencoder(), *PLACES[place])
    feed = make_feed(toys.split(), BATCH, 0, "device")
    placed, resident = parallel.place(state), parallel.place_resident(feed.resident)
    chunk = parallel.place_chunk(next(iter(feed.chunks([(0, 2)], 0, 1))))
    host = parallel.host(placed)
    before = jax.tree.map(np.array, host)
    after, _ = parallel.compiled(placed, resident, chunk)(placed, resident, chunk)
    assert placed.params["model"]["encoder"]["kernel"].is_deleted()
    assert not any(x.is_deleted() for x in jax.tree.leaves(state))
    jax.tree.map(np.testing.assert_array_equal, host, before)  # copies, not views
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.asarray, state), before)
    assert parallel.host(after).step == 2


@pytest.mark.parametrize("place", PLACES)
def test_local_lies_on_one_device_with_its_own_shape(place):
    parallel, state = make(toys.autoencoder(), *PLACES[place])
    local = parallel.local(parallel.place(state))
    assert jax.tree.map(np.shape, local) == jax.tree.map(np.shape, state)
    assert {len(x.sharding.device_set) for x in jax.tree.leaves(local)} == {1}


@pytest.mark.parametrize("kind", ["jit", "pmap"])
def test_a_batch_that_does_not_divide_is_refused(kind):
    with pytest.raises(
        UserError, match=r"batch_size must be a multiple of 8 \(8 devices\), got 12"
    ):
        make_parallel(kind, None, fetch, 0, 12, jax.devices())


def test_pmap_in_several_processes_is_refused(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match="'pmap' runs in one process and there are 2; use 'jit'"):
        make_parallel("pmap", None, fetch, 0, 16, jax.devices())


@pytest.mark.parametrize("copy", ["place", "host"])
def test_an_array_that_there_is_no_memory_for_is_an_error(copy):
    """In a process of its own, which would wait for ever, or end, where NumPy reads the array."""
    code = f"""
import jax
from rnngen_jax.training.parallel import make_parallel
parallel = make_parallel("jit", None, None, 0, 8, jax.devices()[:1])
state = jax.jit(lambda: jax.random.normal(jax.random.key(0), (2**22, 2**22)))()
try:
    parallel.{copy}(state)
except jax.errors.JaxRuntimeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("RESOURCE_EXHAUSTED: Out of memory")
