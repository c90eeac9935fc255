"""Specs of quantisers: what can be composed, and what is refused."""

import jax
import numpy as np
import pytest

from rnngen_jax.errors import UserError
from rnngen_jax.modules import quantisers

BATCH, PLACES, FEATURES = 16, 3, 6


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        ("codebook:codes=8,width=3", {"depth": 2}),
        ("codebook:codes=8,cosine=True", {"groups": 2}),
        ("simvq:codes=8,estimator=rotation", {"depth": 2}),
        ("fsq:levels=4x3x4", {"groups": 2}),
    ],
)
def test_other_compositions_hold_what_their_parts_do(spec, options):
    """One law of each, in one small program: the indices decode to the values."""
    quantiser = quantisers.build(spec, FEATURES, **options)

    @jax.jit
    def run(z):
        params, extra = quantiser.init(jax.random.key(1))
        found = quantiser.quantise(params, extra, z)
        return found.values, found.indices, quantiser.decode(params, extra, found.indices)

    values, indices, decoded = run(
        np.float32(np.random.default_rng(0).standard_normal((BATCH, PLACES, FEATURES)))
    )
    np.testing.assert_array_equal(decoded, values)
    assert indices.shape == (BATCH, PLACES, 2)


@pytest.mark.parametrize(
    ("spec", "options", "said"),
    [
        ("codebok", {}, "did you mean 'codebook'"),
        ("codebook:codes=0", {}, r"quantiser 'codebook': codes must be in \[2, 1048576\], got 0"),
        ("codebook:code=4", {}, "has no option 'code=4'; did you mean 'codes'"),
        ("codebook:update=sgd", {}, "update must be one of ema, gradient, got 'sgd'"),
        ("codebook:orthogonal=0.1", {}, "orthogonal must be 0 with update=ema, got 0.1"),
        ("codebook:revive=1.0", {}, r"revive must be in \[0, 1\), got 1.0"),
        ("codebook:cosine=True", {"depth": 2}, "config.model.depth must be 1 unless"),
        ("fsq", {"depth": 2}, "config.model.depth must be 1 unless"),
        ("fsq:levels=8x1", {}, "levels must be numbers ≥ 3 with x between"),
        ("lfq:bits=40", {}, r"bits must be in \[1, 18\], got 40"),
        ("lfq:group=4", {}, "group must be 0, or a divisor of bits=9 up to 12, got 4"),
        ("gumbel:coldest=2.0", {}, r"coldest must be in \(0, temperature\], got 2.0"),
        (
            "codebook",
            {"groups": 4},
            "config.model.groups must be ≥ 1 and a divisor of the width, 6",
        ),
        ("codebook", {"depth": 0}, "config.model.depth must be ≥ 1, got 0"),
    ],
)
def test_what_does_not_fit_is_refused(spec, options, said):
    with pytest.raises(UserError, match=said):
        quantisers.build(spec, FEATURES, **options)
