"""The laws that every quantiser obeys, over all quantisers.

A quantiser's step and evaluation are compiled once, and the laws read what that program gives.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnngen_jax.evaluation.codes import usage
from rnngen_jax.modules import quantisers
from rnngen_jax.ops import codebooks, lattices

FEATURES = 6
BATCH, PLACES = 16, 3
DEVICES = 8

# By name: the spec and the options of `build`.
KINDS = {
    "ema": ("codebook:codes=8,beta=0.5", {}),
    "rotation": ("codebook:codes=8,estimator=rotation,start=normal", {}),
    "gradient": ("codebook:codes=8,update=gradient,orthogonal=0.1", {}),
    "cosine": ("codebook:codes=8,cosine=True", {}),
    "cosine_gradient": ("codebook:codes=8,cosine=True,update=gradient", {}),
    "low": ("codebook:codes=8,width=2", {}),
    "residual": ("codebook:codes=8,start=normal", {"depth": 3, "dropout": True}),
    "grouped": (
        "codebook:codes=8,update=gradient,estimator=rotation,start=normal",
        {"groups": 2, "depth": 2},
    ),
    "fsq": ("fsq:levels=5x4x3", {}),
    "lfq": ("lfq:bits=6,group=3,sharpness=1.0,beta=0.5", {}),
    "bsq": ("bsq:bits=4,sharpness=2.0", {}),
    "simvq": ("simvq:codes=8,beta=0.5", {}),
    "gumbel": ("gumbel:codes=8", {}),
}
CODEBOOKS = [kind for kind, (spec, _) in KINDS.items() if spec.startswith("codebook")]
close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-6)


def vectors(seed=0, num=BATCH, scale=1.0):
    rng = np.random.default_rng(seed)
    return np.float32(scale * rng.standard_normal((num, PLACES, FEATURES)))


WANT = vectors(100)  # what the decoder wants of the values
EVERYTHING = np.ones((BATCH, PLACES), bool)


class Facts(NamedTuple):
    """What one batch gives.

    Attributes:
      found: `quantise` in training.
      decoded: the values of its indices, from the state before.
      pulls: the gradients of (values · WANT) and of each loss, with respect to params and z.
      evaluated, evaluated_decoded: the same in evaluation.
      alone: indices of the fourth example on its own.
    """

    found: quantisers.base.Quantised
    decoded: Any
    pulls: dict[str, tuple[Any, Any]]
    evaluated: quantisers.base.Quantised
    evaluated_decoded: Any
    alone: Any


def facts(quantiser, params, extra, z, key, mask):
    index = jnp.arange(BATCH)

    def outputs(params, z):
        found = quantiser.quantise(params, extra, z, (key, index), mask)
        return (found.values, found.losses), found

    (_, losses), pull, found = jax.vjp(outputs, params, z, has_aux=True)
    of_values, *of_losses = jnp.eye(1 + len(losses))
    wanted = of_values[:, None, None, None] * WANT * mask[..., None]
    each = jax.vmap(pull)((wanted, dict(zip(losses, of_losses, strict=True))))
    names = ("values", *losses)
    pulls = {name: jax.tree.map(lambda x, n=n: x[n], each) for n, name in enumerate(names)}
    evaluated = quantiser.quantise(params, extra, z)
    return Facts(
        found,
        quantiser.decode(params, extra, found.indices),
        pulls,
        evaluated,
        quantiser.decode(params, extra, evaluated.indices),
        quantiser.quantise(params, extra, z[3:4]).indices,
    )


class Law:
    """A quantiser, its one compiled program, and what that gives after two steps of training."""

    def __init__(self, kind):
        self.kind = kind
        self.spec, self.options = KINDS[kind]
        self.quantiser = quantisers.build(self.spec, FEATURES, **self.options)
        self.params, self.fresh = jax.jit(self.quantiser.init)(jax.random.key(1))
        of = (self.params, self.fresh, vectors(), jax.random.key(0), EVERYTHING)
        traced = jax.jit(functools.partial(facts, self.quantiser)).trace(*of)
        self.text = str(traced.jaxpr)
        self._program = traced.lower().compile()
        self.first = self.at(self.fresh, 0)
        self.trained = self.at(self.first.found.extra, 1).found.extra
        self.facts = self.at(self.trained, 7)

    def at(self, extra, seed, z=None, mask=EVERYTHING):
        z = vectors(seed) if z is None else z
        return self._program(self.params, extra, z, jax.random.key(seed), mask)

    def own(self, params):
        """The parameters without those of a projection around the quantiser."""
        return params.get("quantiser", params) if isinstance(params, dict) else params


@pytest.fixture(scope="module", params=KINDS)
def law(request):
    return Law(request.param)


def of(*kinds):
    return pytest.mark.parametrize("law", kinds, indirect=True)


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_the_indices_decode_to_the_values(law):
    """Law 1: to the bit, in evaluation and in training, which chooses codes before its update."""
    one = law.facts
    np.testing.assert_array_equal(one.decoded, one.found.values)
    np.testing.assert_array_equal(one.evaluated_decoded, one.evaluated.values)
    indices = one.evaluated.indices
    assert one.evaluated.values.shape == (BATCH, PLACES, FEATURES)
    assert indices.shape == (BATCH, PLACES, law.quantiser.depth)
    assert indices.dtype == jnp.int32
    assert 0 <= indices.min() <= indices.max() < law.quantiser.codes


@of("ema", "cosine_gradient")
def test_the_first_batch_has_the_codes_of_its_start(law):
    """Of k-means, before the update."""

    @jax.jit
    def run(z, key):
        found = law.quantiser.assign(law.params, law.fresh, z, (key, jnp.arange(BATCH)), None)
        decoded = law.quantiser.decode(law.params, found.extra, found.indices)
        return found.values, decoded

    values, decoded = run(vectors(), jax.random.key(0))
    np.testing.assert_array_equal(decoded, values)
    assert not np.allclose(law.first.decoded, values)


def test_evaluation_changes_and_draws_nothing(law):
    """Law 2."""
    same(law.facts.evaluated.extra, law.trained)
    evaluate = functools.partial(law.quantiser.quantise, law.params, law.trained)
    assert "random" not in str(jax.make_jaxpr(evaluate)(vectors()))
    # Vectors on their own have the codes that they have in a batch.
    np.testing.assert_array_equal(law.facts.alone, law.facts.evaluated.indices[3:4])


def on_devices(law, way, extra, z, key):
    """A step of eight shards, with gradients averaged over them; each shard's results."""

    def own(z, index):
        def loss(params, z):
            found = law.quantiser.quantise(params, extra, z, (key, index))
            want = jnp.asarray(WANT)[index]
            return (found.values * want).sum() + sum(found.losses.values(), start=0.0), found

        (of_params, of_z), found = jax.grad(loss, argnums=(0, 1), has_aux=True)(law.params, z)
        mean = jax.tree.map(lambda x: jax.lax.pmean(x, "data"), (of_params, found.losses))
        return (found.values, found.indices, of_z), (found.extra, mean)

    index = jnp.arange(BATCH)
    if way == "shard_map":
        mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        data, whole = jax.P("data"), jax.P()
        over = jax.shard_map(
            own, mesh=mesh, in_specs=(data, data), out_specs=(data, whole), check_vma=False
        )
        return jax.jit(over)(z, index)
    over = {"pmap": jax.pmap, "vmap": lambda *of, **how: jax.jit(jax.vmap(*of, **how))}[way]
    cut = jax.tree.map(lambda x: x.reshape(DEVICES, -1, *x.shape[1:]), (z, index))
    local, whole = jax.tree.map(np.asarray, over(own, axis_name="data")(*cut))
    for leaf in jax.tree.leaves(whole):
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))
    local = jax.tree.map(lambda x: x.reshape(BATCH, *x.shape[2:]), local)
    return local, jax.tree.map(lambda x: x[0], whole)


def check_devices(law, way, steps):
    for step, extra in enumerate(steps):
        z = vectors(step)
        one = law.at(extra, step)
        local, (state, (mean, losses)) = on_devices(law, way, extra, z, jax.random.key(step))
        np.testing.assert_array_equal(local[1], one.found.indices)
        close(local[0], one.found.values)
        # A shard's loss is a mean over it, the objective that of the values a sum.
        of_params, of_z = one.pulls["values"]
        for name in losses:
            of_params = jax.tree.map(lambda a, b: a + DEVICES * b, of_params, one.pulls[name][0])
            of_z = of_z + DEVICES * one.pulls[name][1]
        close(local[2], of_z, atol=1e-5)
        jax.tree.map(lambda a, b: close(DEVICES * a, b, atol=2e-5), mean, of_params)
        jax.tree.map(close, losses, one.found.losses)
        jax.tree.map(close, state, one.found.extra)


@of(*(kind for kind in KINDS if kind != "grouped"))  # which is below
def test_one_shard_and_eight_are_alike(law):
    """Law 3: the first batch, with its start, and without one the second.

    The same collectives over a named axis of one device, which compile in a fraction of the time.
    """
    check_devices(law, "vmap", (law.fresh, law.first.found.extra))


@of("ema", "lfq", "grouped")
def test_one_device_and_eight_are_alike(law):
    """Law 3, of a codebook, a lattice and a composed quantiser."""
    check_devices(law, "shard_map", (law.fresh,))


@of("ema")
def test_one_device_and_eight_are_alike_by_pmap(law):
    check_devices(law, "pmap", (law.fresh,))


def test_the_statistics_cross_the_network_once(law):
    """Whatever the depth and the groups; the start by k-means and mean entropies apart."""

    def update(z, index):
        train = (jax.random.key(0), index)
        return law.quantiser.quantise(law.params, law.fresh, z, train).extra

    shard = BATCH // DEVICES
    traced = jax.make_jaxpr(update, axis_env=[("data", DEVICES)])
    text = str(traced(vectors(num=shard), jnp.arange(shard)))
    assert "all_gather" not in text
    starts = 2 * law.quantiser.depth * (law.kind in CODEBOOKS and "normal" not in law.spec)
    entropies = law.spec.startswith(("lfq", "bsq"))
    updates = law.kind in CODEBOOKS
    with_masks = law.quantiser.depth if "dropout" in law.options else 0  # how many are kept
    assert text.count("psum") == starts + entropies + updates + with_masks


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_a_dead_code_is_one_below_a_fraction_whatever_the_batch_size(update):
    """Law 4: of three codes, one is used by a share of the vectors below the threshold."""
    spec = f"codebook:codes=3,update={update},start=normal,decay=0.5,revive=0.3"
    quantiser = quantisers.build(spec, 2)
    centres = np.float32([[0, 0], [9, 0], [0, 9]])
    params, first = quantiser.init(jax.random.key(0))
    if update == "ema":
        first = {**first, "codes": jnp.asarray(centres), "total": jnp.asarray(centres)}
    else:
        params = {"codes": jnp.asarray(centres)}

    @jax.jit
    def run(extra, z, key):
        extra = quantiser.quantise(params, extra, z, (key, jnp.arange(len(z)))).extra
        codes = quantiser.decode(params, extra, jnp.arange(3)[:, None])
        return extra, codes, codebooks.centroids(extra["count"], extra.get("total", codes))

    def after(num, rare):
        """Batches of `num` vectors, `rare` of them at the third code: is it replaced by one?"""
        which = np.repeat([0, 1, 2], [num - num // 2 - rare, num // 2, rare])
        extra, revived = first, False
        for step in range(12):
            extra, codes, averages = run(extra, centres[which][:, None], jax.random.key(step))
            revived |= bool(np.isclose(extra["count"][2], num / 3))
            if update == "ema":  # the averages are those of the codes, also of new ones
                np.testing.assert_allclose(codes, averages, atol=1e-3)
        return revived, codes

    for num in (20, 200):
        revived, codes = after(num, num * 15 // 100)  # 15 % > 0.3 / 3
        assert not revived
        np.testing.assert_allclose(codes, centres, atol=1e-3)
        assert after(num, num * 5 // 100)[0]


@of(*(kind for kind, (spec, _) in KINDS.items() if not spec.startswith(("fsq", "gumbel"))))
def test_the_commitment_pulls_the_encoder_and_the_codebook_loss_the_codes(law):
    """Law 5."""
    of_params, of_z = law.facts.pulls["commitment"]
    assert np.abs(of_z).max() > 0
    for leaf in jax.tree.leaves(law.own(of_params)):
        np.testing.assert_array_equal(leaf, 0)
    if "codebook" in law.facts.pulls:
        of_params, of_z = law.facts.pulls["codebook"]
        np.testing.assert_array_equal(of_z, 0)
        assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(of_params))


@of("ema", "rotation", "gradient", "lfq", "simvq")
def test_beta_weighs_the_term_of_the_encoder(law):
    """Law 5: β is 0.25 unless the spec has another; the other term has none."""
    beta = 0.5 if "beta=0.5" in law.spec else 0.25
    z, found = vectors(7), law.facts.evaluated
    error = np.square(z - np.asarray(found.values)).mean()
    assert found.losses["commitment"] == pytest.approx(beta * error, rel=1e-5)
    if "codebook" in found.losses:
        assert found.losses["codebook"] == pytest.approx(error, rel=1e-5)
    assert ("codebook" in found.losses) == (law.kind in ("gradient", "simvq"))


def test_products_are_exact(law):
    """Law 6: float32 operands and the highest precision in every product, gradients included."""
    for product in law.text.split("dot_general[")[1:]:
        assert "precision=(Precision.HIGHEST, Precision.HIGHEST)" in product.split("preferred")[0]
    result = jax.eval_shape(
        lambda z, key: law.quantiser.quantise(
            law.params, law.fresh, z, (key, jnp.arange(BATCH)), jnp.asarray(EVERYTHING)
        ),
        jnp.asarray(vectors(), jnp.bfloat16),
        jax.random.key(0),
    )
    assert result.values.dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(result.extra))


def test_masked_vectors_move_nothing(law):
    """Law 7: losses, gradients and the state are those of other vectors in the masked places."""
    mask = np.random.default_rng(5).random((BATCH, PLACES)) < 0.7
    z = vectors(3)
    other = np.where(mask[..., None], z, 50 * vectors(4))
    one, two = (law.at(law.trained, 3, x, mask) for x in (z, other))
    near = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(near, one.found.losses, two.found.losses)
    jax.tree.map(near, one.found.extra, two.found.extra)
    for name, (of_params, of_z) in one.pulls.items():
        again, over = two.pulls[name]
        jax.tree.map(near, of_params, again)
        near(of_z[mask], over[mask])
        np.testing.assert_array_equal(over[~mask], 0)
    if law.kind != "gumbel":  # which counts its batches
        nothing = law.at(law.trained, 3, z, np.zeros_like(mask))
        jax.tree.map(near, nothing.found.extra, law.trained)


@pytest.mark.parametrize("kind", ["ema", "gradient", "grouped"])
def test_a_start_far_from_the_data_recovers(kind):
    """Law 8: codes started near the origin, of data far from it, come to be used."""
    spec, options = KINDS[kind]
    spec = spec.removesuffix(",start=normal")
    revived = spec + ",start=normal,revive=0.2,decay=0.8"
    rng = np.random.default_rng(0)
    modes = np.float32(5 + 3 * rng.standard_normal((8, FEATURES)))

    def used(spec, steps=30):
        quantiser = quantisers.build(spec, FEATURES, **options)
        params, extra = quantiser.init(jax.random.key(1))

        @jax.jit
        def step(extra, z, key):
            extra = quantiser.quantise(params, extra, z, (key, jnp.arange(32))).extra
            return extra, quantiser.quantise(params, extra, modes[:, None]).indices

        for n in range(steps):
            z = modes[rng.integers(0, 8, (32, 2))] + 0.1 * vectors(n, 32)[:, :2]
            extra, indices = step(extra, z, jax.random.key(n))
        return usage(np.asarray(indices), quantiser.codes).perplexity

    collapsed = used(revived.replace("revive=0.2", "revive=0.0"))
    assert used(revived) > 1.5 * collapsed
    if kind == "ema":
        assert used(spec + ",revive=0.0", 2) > 1.3 * collapsed


def test_the_gradient_reaches_the_encoder(law):
    """All features of z are pulled by what the decoder wants of the values."""
    _, of_z = law.facts.pulls["values"]
    assert np.isfinite(of_z).all()
    assert (np.abs(of_z).sum((0, 1)) > 0).all()


@of("ema", "gradient", "residual", "lfq")
def test_straight_through_is_the_identity(law):
    """Also in depth, whatever the number of depths that an example keeps."""
    np.testing.assert_allclose(law.facts.pulls["values"][1], WANT, rtol=1e-6)


@of("residual")
def test_each_depth_lowers_the_error(law):
    """And the commitment is β times the mean of the depths' errors."""
    z, found = vectors(7), law.facts.evaluated
    decode = jax.jit(functools.partial(law.quantiser.decode, law.params, law.trained))
    parts = [decode(np.where(np.arange(3) < d, found.indices, -1)) for d in range(4)]
    errors = [float(np.square(z - np.asarray(part)).mean()) for part in parts]
    assert errors[0] > errors[1] > errors[2] > errors[3]
    assert found.losses["commitment"] == pytest.approx(0.25 * np.mean(errors[1:]), rel=1e-5)


@of("residual")
def test_dropout_leaves_out_the_last_depths(law):
    indices = np.asarray(law.facts.found.indices)
    number = (indices >= 0).sum(-1)
    assert set(number[:, 0]) == {1, 2, 3}
    np.testing.assert_array_equal(number, number[:, :1].repeat(PLACES, 1))
    np.testing.assert_array_equal(indices >= 0, np.arange(3) < number[..., None])
    assert (np.asarray(law.facts.evaluated.indices) >= 0).all()


def squared(z, q):
    """Squared distances of vectors `[..., D]` to codes `[K, D]`, or their own `[..., K, D]`."""
    return np.square(np.float64(z)[..., None, :] - np.float64(q)).sum(-1)


def paths_of(law, z):
    """What each path of codes of three depths costs, one depth after the other, `[..., 512]`."""
    table = np.stack([np.asarray(extra["codes"], np.float64) for extra in law.trained])
    left, found = z[..., None, :] + np.zeros((1, 1)), np.zeros((*z.shape[:-1], 1))
    for codes in table:
        far = squared(left, codes)
        found = (found[..., None] + far - far.min(-1, keepdims=True)).reshape(*z.shape[:-1], -1)
        left = (left[..., None, :] - codes).reshape(*z.shape[:-1], -1, z.shape[-1])
    return found


# What each code costs, `[..., K]`, in the order of the index (of a path, the last depth's first).
COSTS = {
    "ema": lambda law, z: squared(z, law.trained["codes"]),
    "cosine": lambda law, z: squared(codebooks.unit(z), law.trained["codes"]),
    "simvq": lambda law, z: squared(z, law.trained["codes"] @ law.params["kernel"]),
    "lfq": lambda law, z: squared(z, lattices.sign_values(np.arange(64), 6)),
    "gumbel": lambda law, z: -(z @ law.params["kernel"] + law.params["bias"]),
    "residual": paths_of,
}


@of(*(kind for kind in KINDS if kind not in ("rotation", "gradient", "cosine_gradient")))
def test_alternatives_are_the_codes_that_cost_least(law):
    """All of them in order, the vector's own first; fewer are the first of more."""
    z, own = vectors(7)[:2], law.facts.evaluated.indices[:2]
    find, depth = law.quantiser.alternatives, law.quantiser.depth
    everything = law.quantiser.codes**depth
    few, found = jax.jit(lambda z: [find(law.params, law.trained, z, own, n) for n in (9, 10**9)])(
        z
    )
    assert found.indices.shape == (2, PLACES, everything, depth)
    same(few, jax.tree.map(lambda x: x[:, :, : few.costs.shape[-1]], found))
    assert few.costs.shape[-1] == min(9, everything)
    np.testing.assert_array_equal(found.indices[..., 0, :], own)
    np.testing.assert_array_equal(found.costs[..., 0], 0)
    assert (np.diff(found.costs) >= 0).all()
    flat = np.asarray(found.indices) @ law.quantiser.codes ** np.arange(depth)[::-1]
    np.testing.assert_array_equal(np.sort(flat), np.broadcast_to(np.arange(everything), flat.shape))
    if law.kind in COSTS:
        wanted = np.asarray(COSTS[law.kind](law, z))
        wanted = np.take_along_axis(wanted - wanted.min(-1, keepdims=True), flat, -1)
        np.testing.assert_allclose(found.costs, wanted, atol=2e-5)


@pytest.mark.parametrize("spec", ["fsq:levels=5x4x3", "bsq:bits=4"])
def test_alternatives_on_a_grid_are_those_that_are_nearest(spec):
    quantiser = quantisers.from_spec(spec, 0)
    z = np.random.default_rng(1).standard_normal((5, quantiser.features)).astype(np.float32)

    @jax.jit
    def run(z):
        own = quantiser.quantise({}, {}, z).indices
        found = quantiser.alternatives({}, {}, z, own, 7)
        widths = np.float32([2, 2, 1])
        at = codebooks.unit(z) if "bsq" in spec else lattices.fsq_bounded(z, (5, 4, 3)) / widths
        every = quantiser.decode({}, {}, jnp.arange(quantiser.codes)[:, None])
        return found.costs, at, every, quantiser.decode({}, {}, found.indices)

    found, at, every, values = run(z)
    costs = np.sort(squared(at, every))[:, :7]
    np.testing.assert_allclose(found, costs - costs[:, :1], atol=1e-5)
    far = squared(at, values)
    np.testing.assert_allclose(far - far[:, :1], found, atol=1e-5)


def test_every_quantiser_is_here():
    assert {spec.partition(":")[0] for spec, _ in KINDS.values()} == set(quantisers.names())
