"""The use of codes over a split."""

import numpy as np
import pytest

from rnngen_jax.evaluation import codes, latents


def test_perplexity_is_of_the_whole_and_not_a_mean_of_parts():
    """Each half uses one code: half of a split has perplexity 1, the whole has 2."""
    halves = np.zeros((10, 3, 1), int), np.ones((10, 3, 1), int)
    assert [codes.usage(half, 4).perplexity for half in halves] == [1, 1]
    both = codes.usage(np.concatenate(halves), 4)
    assert both.perplexity == pytest.approx(2)
    assert (both.share, both.dead) == (0.5, 2)
    summed = codes.usage_of(sum(codes.counts(half, 4) for half in halves))
    assert summed == both


def test_depths_have_codes_of_their_own():
    rng = np.random.default_rng(0)
    indices = np.stack([rng.integers(0, 5, 1000), rng.integers(0, 2, 1000)], -1)
    indices[:10, 1] = -1  # depths that are left out count nothing
    found = codes.usage(indices, 5)
    entropies = []
    for column in indices.T:
        p = np.bincount(column[column >= 0]) / (column >= 0).sum()
        entropies.append(-(p * np.log(p)).sum())
    assert found.perplexity == pytest.approx(np.exp(np.mean(entropies)))
    assert (found.share, found.dead, found.possible) == (0.7, 3, 1)


@pytest.mark.parametrize(("num", "used", "collapsed"), [(1000, 9, True), (1000, 11, False)])
def test_a_collapse_is_the_use_of_few_codes(num, used, collapsed):
    indices = np.arange(num)[:, None] % used
    found = codes.usage(indices, 100)
    assert found.collapsed == collapsed
    assert f"codebook collapse: {used}.0% of the codes are in use" in found.warning()
    # Few images cannot use many codes.
    assert not codes.usage(np.arange(5)[:, None], 100).collapsed


def test_models_without_a_codebook_have_no_codes():
    usage = latents.Usage(1.0, 0.1, None, np.ones((1, 2)))
    assert "perplexity" not in usage.metrics()
    of_four = codes.usage(np.arange(4)[:, None], 4)
    with_codes = usage._replace(codes={"": of_four})
    assert with_codes.metrics()["perplexity"] == pytest.approx(4)
    assert with_codes.metrics()["dead_codes"] == 0


def test_each_level_has_figures_and_a_warning_of_its_own():
    few = codes.usage(np.zeros((100, 1), int), 64)
    both = {"top": few, "bottom": codes.usage(np.arange(4)[:, None], 4)}
    usage = latents.Usage(1.0, 0.1, np.ones((2, 1)), np.ones((2, 1)), both, {"top": 1.0})
    metrics = usage.metrics()
    assert "perplexity" not in metrics
    assert (metrics["top/dead_codes"], metrics["bottom/dead_codes"]) == (63, 0)
    assert metrics["top/kl"] == 1
    (line,) = usage.warnings()
    assert line.startswith("top codebook collapse: 1.6%")
