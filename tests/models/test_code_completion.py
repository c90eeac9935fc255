"""Grids of codes given the known pixels, against the posterior by brute force over all grids."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rnngen_jax import models
from rnngen_jax.models import code_completion, code_rnn, levels
from rnngen_jax.models.base import Given
from rnngen_jax.models.code_completion import SCALES
from rnngen_jax.models.levels import packed
from rnngen_jax.modules.quantisers.base import Alternatives
from rnngen_jax.shapes import ImageSpec

SPEC = ImageSpec(4, 4, levels=3, classes=2)
NUM = 3000  # draws
TINY = {"features": 3, "kernel": 2, "blocks": 1, "vectors": 3}
PRIOR = {"features": 5, "input_features": 4, "deep_features": 4}
# One place of two depths of 3 codes, and 2x2 places of 2 codes below a top of one.
KINDS = {
    "deep": {"quantiser": "codebook:codes=3,start=normal", "depth": 2, "stages": 2},
    "levels": {"quantiser": "lfq:bits=1", "stages": 1, "levels": 2},
}
T = 0.8  # temperature
MASKS = {"nothing": np.zeros((4, 4), bool), "half": np.tri(4, dtype=bool)}
MASKS["everything"] = ~MASKS["nothing"]


def wavy(tree, size=0.3):
    """Arrays with waves added; in NumPy, which compiles nothing."""

    def added(x):
        return np.asarray(x + size * np.sin(1.0 + np.arange(x.size)).reshape(x.shape), x.dtype)

    return jax.device_put(jax.tree.map(added, jax.device_get(tree)))


class Problem:
    """A tiny model of codes, all its grids, and images of which some pixels are known."""

    def __init__(self, kind):
        tokenizer = models.build("vqvae", TINY | KINDS[kind], SPEC)
        self.codes, self.specs = tokenizer.codes, tokenizer.codes.specs
        own, extra = jax.jit(tokenizer.init)(jax.random.key(2))
        self.own = wavy(own, 0.5 if kind == "deep" else 0.3), extra
        self.prior = levels.prior("code_rnn", code_rnn.Config(**PRIOR), self.specs)
        self.params = wavy(jax.jit(self.prior.init)(jax.random.key(3))[0])
        self.image = np.random.default_rng(1).integers(0, 3, (1, *SPEC.shape), np.uint8)
        sizes = [spec.levels for spec in self.specs for _ in range(spec.dims)]
        every = np.array(list(itertools.product(*map(range, sizes))), np.uint8)
        ends = np.cumsum([spec.dims for spec in self.specs])[:-1]
        split = zip(np.split(every, ends, axis=1), self.specs, strict=True)
        self.every = packed([flat.reshape(-1, *spec.shape) for flat, spec in split])
        self.digits = np.cumprod([1, *sizes[:0:-1]])[::-1]
        self.facts = jax.jit(self.of_all_grids)()

    def target(self, image, known):
        label = jnp.zeros(len(image), jnp.int32)
        given = Given(image, known)
        return code_completion.target_of(
            self.codes, self.own, self.prior, self.params, given, label, jnp.float32(T)
        )

    def of_all_grids(self):
        raw = self.codes.raw(*self.own, self.every)
        logits = self.prior.log_probs(self.prior.conditionals(self.params, {}, self.every))
        return logits, self.codes.likelihood.log_probs(raw)

    def joint(self, known):
        """p(c) p(known pixels | c) of all grids at temperature T, float64."""
        logits, pixels = self.facts
        total = 0.0
        for table, grid in zip(jax.tree.leaves(logits), jax.tree.leaves(self.every), strict=True):
            log_p = np.float64(table) / T
            log_p -= np.logaddexp.reduce(log_p, axis=-1, keepdims=True)
            own = np.take_along_axis(log_p, np.int64(grid)[..., None], -1)
            total = total + own.reshape(len(own), -1).sum(1)
        assert np.exp(total).sum() == pytest.approx(1, abs=1e-5)
        log_x = np.float64(pixels) / T
        log_x -= np.logaddexp.reduce(log_x, axis=-1, keepdims=True)
        at = np.int64(self.image)[..., None].repeat(len(log_x), 0)
        told = np.take_along_axis(log_x, at, -1)[..., 0]
        return np.exp(total + told[:, known].sum((1, 2)))

    def posterior(self, known):
        """p(c | known pixels) of all grids."""
        joint = self.joint(known)
        return joint / joint.sum()

    def numbers(self, codes):
        """Which of all grids each is, `[B]`."""
        flat = [np.reshape(grid, (len(grid), -1)) for grid in jax.tree.leaves(codes)]
        return np.concatenate(flat, 1) @ self.digits

    def agree(self, codes, p):
        """Whether grids of codes follow their probabilities, by a χ² test."""
        often = p * NUM > 5
        counts = np.bincount(self.numbers(codes), minlength=len(p))
        counts, wanted = (np.append(x[often], x[~often].sum()) for x in (counts, NUM * p))
        some = wanted > 0
        return stats.chisquare(counts[some], wanted[some]).pvalue > 1e-3


@functools.cache
def problem(kind):
    return Problem(kind)


def repeated(x):
    """An image or a mask for each of the draws."""
    return jnp.broadcast_to(x, (NUM, *x.shape[x.ndim == 4 :]))


@pytest.mark.parametrize("kind", KINDS)
def test_sweeps_leave_the_posterior_as_it_is(kind):
    """Of exact draws, whatever the evidence is; while those of the prior come nearer to it."""
    case = problem(kind)
    known = MASKS["half"]
    p, prior = case.posterior(known), case.posterior(MASKS["nothing"])
    assert np.abs(p - prior).sum() / 2 > 0.1
    rng = np.random.default_rng(0)

    @jax.jit
    def swept(codes, key):
        target = case.target(repeated(case.image), repeated(known))
        told = target.evidence(repeated(case.image))
        return code_completion.sweep(target, jax.tree.map(lambda x: 3 * x, told), codes, key)

    def drawn(p):
        which = rng.choice(len(p), NUM, p=p)
        return jax.tree.map(lambda x: x[which], case.every)

    codes, moved = swept(drawn(p), jax.random.key(5))
    assert case.agree(codes, p)
    assert 0.02 < np.mean(moved) < 0.95
    codes, _ = swept(drawn(prior), jax.random.key(6))
    assert not case.agree(codes, prior)
    for seed in range(12):
        codes, _ = swept(codes, jax.random.key(seed))
    assert case.agree(codes, p)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_draws_are_those_of_the_posterior(kind):
    """The mean weight of each grid is p(c) p(known pixels | c); given nothing all weights are 1."""
    case = problem(kind)

    @jax.jit
    def run(known, key):
        target = case.target(repeated(case.image), repeated(known))
        told = target.evidence(repeated(case.image))
        return code_completion.propose(target, jax.tree.map(lambda x: 2 * x, told), key)

    for name, known in MASKS.items():
        codes, weights = run(known, jax.random.key(1))
        if name == "nothing":
            np.testing.assert_allclose(weights, 0, atol=1e-4)
            assert case.agree(codes, case.joint(known))
            continue
        w = np.exp(np.float64(weights))
        wanted = case.joint(known)
        which = case.numbers(codes)[:, None] == np.arange(len(wanted))
        each = np.where(which, w[:, None], 0)
        error = each.std(0) / np.sqrt(NUM) + 1e-12
        drawn = (each > 0).sum(0) > 20
        assert drawn.sum() > 3
        assert (np.abs(each.mean(0) - wanted) < 4.5 * error)[drawn].all()
        assert w.mean() == pytest.approx(wanted.sum(), abs=4.5 * w.std() / np.sqrt(NUM))


def test_the_evidence_is_what_codes_cost_beside_known_pixels():
    """In units of the second alternative, at each place by its share of known pixels."""
    spec = ImageSpec(1, 2, channels=2, levels=3)
    indices = np.array([[[[[0, 1], [0, 2]], [[2, 2], [1, 2]]]]], np.int32)  # [1, 1, 2, M, depth]
    costs = np.float32([[[[0, 2], [0, 4]]]])

    def alternatives(image, count):
        return (Alternatives(jnp.asarray(indices), jnp.asarray(costs)),)

    def of(known):
        mask = jnp.full((1, 1, 4), known)
        return code_completion.evidence(alternatives, (spec,), jnp.zeros((1, 1, 4, 1)), mask)

    found = of(True)
    assert found.shape == (len(SCALES), 1, 1, 2, 2, 3)
    unit = -2 / 3  # the second alternatives cost 3 on average
    wanted = [[[0, unit, unit], [unit, 0, unit]], [[2 * unit, 2 * unit, 0], [0] * 3]]
    wanted[1][1] = [2 * unit, 2 * unit, 0]
    for scale, own in zip(SCALES, found, strict=True):
        np.testing.assert_allclose(own[0, 0], np.multiply(scale, wanted), atol=1e-6)
    np.testing.assert_array_equal(of(False), 0)
