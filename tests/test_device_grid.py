"""One device, eight with jit and with pmap, and several processes: the same numbers and work."""

import pathlib

import device_grid as grid
import host_processes
import jax
import numpy as np
import pytest

from rnngen_jax import models
from rnngen_jax.evaluation import spread
from rnngen_jax.modules.vqvae import last_layer
from rnngen_jax.pods import hlo
from rnngen_jax.pods.programs import programs

CLOSE = 1e-5  # relative, of losses
WORK = """
import sys
sys.path.insert(0, {here!r})
import host_processes
host_processes.join()
import device_grid
device_grid.work({out!r})
"""


def apart(found, wanted):
    """The largest difference of the losses, relative to them."""
    losses = [metric for metric in wanted if metric.startswith("loss/")]
    assert losses
    assert all(np.ptp(wanted[metric]) > 1e-5 for metric in losses)
    return max(np.max(np.abs(found[m] / wanted[m] - 1)) for m in losses)


def model_codes(case):
    """What a grid of codes is."""
    return case.model.codes.spec


@pytest.mark.parametrize("name", grid.NAMES)
def test_eight_devices_have_the_losses_and_each_the_work_of_one(name):
    """Compiled, of each config's first preset: what crosses the network, and what a device does."""
    case = grid.case(name)
    eight, one = (grid.train(case, "jit", jax.devices()[:count]) for count in (8, 1))
    assert apart(eight.metrics, one.metrics) < CLOSE
    own = [
        sum(x.size for x in jax.tree.leaves(params))
        for params in jax.eval_shape(case.model.init, jax.random.key(0))[0].values()
    ]
    every = hlo.costs(eight.compiled.as_text())
    assert set(every.collectives) == {"all-reduce"}
    # In each step the gradients and metrics, but not the norms of gradients that have crossed.
    told = len(eight.metrics) - len(own)
    numbers = every.collectives["all-reduce"].bytes / 4 / grid.STEPS
    statistics = numbers - sum(own) - told
    if getattr(case.settings.model, "norm", "none") == "batch":
        assert 0 < statistics < 0.1 * sum(own)
    elif case.settings.codes is not None:  # how often each code has been seen
        assert statistics == model_codes(case).levels * model_codes(case).channels
    elif name in models.tokenizers():
        # Its codes' counts and sums, and as many candidates in the places of dead ones; the rest is
        # in the branch that is taken at the first step alone, k-means. Of a discriminator also two
        # gradients with respect to the last layer, whose norms weight its loss.
        if name == "vqgan":
            shapes = jax.eval_shape(case.model.init, jax.random.key(0))[0]["model"]["decoder"]
            last = sum(x.size for x in jax.tree.leaves(shapes[last_layer(shapes)]))
            statistics -= 2 * last
        book = model_codes(case).levels * (case.settings.model.vectors + 1)
        assert 2 * book + 1 <= statistics < 15 * book
    else:
        assert statistics == 0
    lowered = programs(case.settings, case.dataset)["train"].lower(jax.devices()[:1], 2)
    alone = hlo.costs(lowered.compile().as_text())
    assert every.unknown_loops == alone.unknown_loops == 0
    # A mean over devices is an operation for each number that crosses.
    assert abs(every.flops / grid.STEPS - alone.flops) < 0.02 * alone.flops + numbers


@pytest.mark.slow
def test_the_whole_grid(tmp_path, monkeypatch):
    """Prints the largest differences to one device, as a table."""
    found = {}
    for count in (2, 4):
        out = tmp_path / f"{count}"
        code = WORK.format(here=str(pathlib.Path(__file__).parent), out=str(out))
        host_processes.run(code, count, 2, timeout=3000)
        for index in range(count):
            with np.load(f"{out}.{index}.npz") as arrays:
                found[count, index] = dict(arrays)
    print(
        f"{'':<24}{'8, jit':>10}{'8, pmap':>10}{'2 hosts':>10}{'4 hosts':>10}  evaluated, sampled"
    )
    for optimizer in grid.RATES:
        for name in grid.NAMES:
            case, start = grid.case(name, optimizer), f"{name} {optimizer} "
            one = grid.train(case, "jit", jax.devices()[:1]).metrics
            each = [grid.train(case, kind, jax.devices()).metrics for kind in ("jit", "pmap")]
            for count in (2, 4):
                for index in range(count):  # which all see the same
                    mine = {metric: found[count, index][start + metric] for metric in one}
                each.append(mine)
            away = [apart(metrics, one) for metrics in each]
            equal = ""
            if optimizer == "sgd":
                equal = measured_alike(case, name, found, monkeypatch)
            print(f"{start:<24}" + "".join(f"{x:>10.1e}" for x in away) + f"  {equal}", flush=True)
            assert max(away) < CLOSE, start
            jax.clear_caches()


def measured_alike(case, name, found, monkeypatch):
    """Which there are of scores and samples, once they are found to be those of one device.

    Samples to the bit; of scores, the last bits differ where the compiler, given all devices at
    once, has simplified the program differently.
    """
    eight, equal = grid.measured(case), {}
    with monkeypatch.context() as patch:
        patch.setattr(spread, "all_devices", lambda: jax.devices()[:1])
        one = grid.measured(case)
    for what, values in one.items():
        for mine in (eight[what], *(found[2, index][f"{name} {what}"] for index in (0, 1))):
            equal[what] = equal.get(what, True) and np.array_equal(mine, values)
            tolerance = 0 if what == "samples" else 1e-6
            np.testing.assert_allclose(mine, values, rtol=tolerance, err_msg=f"{name} {what}")
    return ", ".join(what + ("" if same else " to 1e-6") for what, same in equal.items())
