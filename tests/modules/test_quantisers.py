"""The laws that every quantiser obeys, over all quantisers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnngen_jax.errors import UserError
from rnngen_jax.evaluation.codes import usage
from rnngen_jax.modules import quantisers
from rnngen_jax.ops import codebooks

FEATURES = 6
BATCH, PLACES = 16, 3
DEVICES = 8

# By name: the spec and the options of `build`.
KINDS = {
    "ema": ("codebook:codes=8", {}),
    "ema_rotation": ("codebook:codes=8,estimator=rotation", {}),
    "ema_normal": ("codebook:codes=8,start=normal", {}),
    "gradient": ("codebook:codes=8,update=gradient,orthogonal=0.1", {}),
    "cosine": ("codebook:codes=8,cosine=True", {}),
    "cosine_gradient": ("codebook:codes=8,cosine=True,update=gradient", {}),
    "low": ("codebook:codes=8,width=2", {}),
    "residual": ("codebook:codes=8", {"depth": 3}),
    "residual_dropout": ("codebook:codes=8,estimator=rotation", {"depth": 3, "dropout": True}),
    "residual_gradient": ("codebook:codes=8,update=gradient", {"depth": 2}),
    "residual_low": ("codebook:codes=8,width=3", {"depth": 2}),
    "grouped": ("codebook:codes=8", {"groups": 2}),
    "grouped_residual": ("codebook:codes=8", {"groups": 2, "depth": 2}),
    "fsq": ("fsq:levels=5x4x3", {}),
    "fsq_exact_width": ("fsq:levels=4x3x4x3x4x3", {}),
    "lfq": ("lfq:bits=4,sharpness=2.0", {}),
    "lfq_groups": ("lfq:bits=6,group=3,sharpness=1.0", {}),
    "bsq": ("bsq:bits=6,sharpness=2.0", {}),
    "simvq": ("simvq:codes=8", {}),
    "simvq_residual": ("simvq:codes=8,estimator=rotation", {"depth": 2}),
    "gumbel": ("gumbel:codes=8", {}),
}
each = pytest.mark.parametrize("kind", KINDS)
STATEFUL = [kind for kind, (spec, _) in KINDS.items() if spec.startswith("codebook")]


@functools.cache
def built(kind):
    spec, options = KINDS[kind]
    quantiser = quantisers.build(spec, FEATURES, **options)
    return quantiser, *quantiser.init(jax.random.key(1))


def vectors(seed=0, num=BATCH, scale=1.0):
    rng = np.random.default_rng(seed)
    return np.float32(scale * rng.standard_normal((num, PLACES, FEATURES)))


def train_of(seed=0, num=BATCH):
    return jax.random.key(seed), jnp.arange(num)


@functools.cache
def step_of(kind):
    """One training step's quantised vectors and gradient, compiled."""
    quantiser, _, _ = built(kind)

    def run(params, extra, z, key, index, mask=None):
        def loss(params, z):
            found = quantiser.quantise(params, extra, z, (key, index), mask)
            taken = found.values if mask is None else found.values * mask[..., None]
            return jnp.sin(taken).mean() + sum(found.losses.values(), start=0.0), found

        gradient, found = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, z)
        return found, gradient

    return run


def trained(kind, steps=2):
    """The state after some steps, so that codes have been started and moved."""
    quantiser, params, extra = built(kind)
    run = jax.jit(step_of(kind))
    for step in range(steps):
        (found, _) = run(params, extra, vectors(step), *train_of(step))
        extra = found.extra
    return quantiser, params, extra


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@each
def test_the_indices_decode_to_the_values(kind):
    """Law 1: to the bit, in evaluation and in training."""
    quantiser, params, extra = trained(kind)
    z = vectors(7)
    for train in (None, train_of(3)):
        # The codes that are chosen are those before the update, but after the start.
        found = quantiser.assign(params, extra, jnp.asarray(z), train, None)
        np.testing.assert_array_equal(
            quantiser.decode(params, found.extra, found.indices), found.values
        )
    found = quantiser.quantise(params, extra, z)
    assert found.values.shape == z.shape
    assert found.indices.shape == (*z.shape[:-1], quantiser.depth)
    assert found.indices.dtype == jnp.int32
    assert 0 <= found.indices.min() <= found.indices.max() < quantiser.codes
    np.testing.assert_array_equal(quantiser.decode(params, extra, found.indices), found.values)


@each
def test_evaluation_changes_and_draws_nothing(kind):
    """Law 2."""
    quantiser, params, extra = trained(kind)
    z = vectors(7)
    one, other = quantiser.quantise(params, extra, z), quantiser.quantise(params, extra, z)
    same(one.extra, extra)
    same(one.values, other.values)
    text = str(jax.make_jaxpr(lambda z: quantiser.quantise(params, extra, z))(z))
    assert "random" not in text
    # Vectors on their own have the codes that they have in a batch.
    alone = quantiser.quantise(params, extra, z[3:4])
    np.testing.assert_array_equal(alone.indices, one.indices[3:4])


def on_devices(kind, way, extra, z, key):
    """A step on eight devices, with gradients averaged over them; each device's results."""
    _, params, _ = built(kind)
    run = step_of(kind)

    def own(z, index):
        found, (of_params, of_z) = run(params, extra, z, key, index)
        mean = jax.tree.map(lambda x: jax.lax.pmean(x, "data"), (of_params, found.losses))
        return (found.values, found.indices, of_z), (found.extra, mean)

    index = jnp.arange(BATCH)
    if way == "pmap":
        cut = jax.tree.map(lambda x: x.reshape(DEVICES, -1, *x.shape[1:]), (z, index))
        local, whole = jax.pmap(own, axis_name="data")(*cut)
        for leaf in jax.tree.leaves(whole):
            np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))
        local = jax.tree.map(lambda x: x.reshape(BATCH, *x.shape[2:]), local)
        return local, jax.tree.map(lambda x: x[0], whole)
    mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    data, whole = jax.P("data"), jax.P()
    over = jax.shard_map(
        own, mesh=mesh, in_specs=(data, data), out_specs=(data, whole), check_vma=False
    )
    return jax.jit(over)(z, index)


BY_PMAP = ("ema", "gradient", "lfq", "gumbel")  # of the same function


@pytest.mark.parametrize(
    ("kind", "way"), [(k, "shard_map") for k in KINDS] + [(k, "pmap") for k in BY_PMAP]
)
def test_one_device_and_eight_are_alike(kind, way):
    """Law 3: the first batch, with its start, and a second one."""
    _, params, extra = built(kind)
    others = extra
    for step in range(2):
        others = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), others)
        z, (key, index) = vectors(step), train_of(step)
        one, (of_params, of_z) = jax.jit(step_of(kind))(params, extra, z, key, index)
        local, (others, (mean, losses)) = on_devices(kind, way, others, z, key)
        close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-6)
        np.testing.assert_array_equal(local[1], one.indices)
        close(local[0], one.values)
        close(local[2] / DEVICES, of_z)
        jax.tree.map(close, mean, of_params)
        jax.tree.map(close, losses, one.losses)
        jax.tree.map(close, others, one.extra)
        extra = one.extra


@each
def test_the_statistics_cross_the_network_once(kind):
    """Whatever the depth and the groups; the start by k-means and mean entropies apart."""
    quantiser, params, extra = built(kind)

    def update(z, index):
        return quantiser.quantise(params, extra, z, (jax.random.key(0), index)).extra

    mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    over = jax.shard_map(
        update, mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P(), check_vma=False
    )
    text = str(jax.make_jaxpr(over)(vectors(), jnp.arange(BATCH)))
    assert "all_gather" not in text
    starts = 2 * quantiser.depth * ("codebook" in KINDS[kind][0] and "normal" not in kind)
    entropies = KINDS[kind][0].startswith(("lfq", "bsq"))
    updates = kind in STATEFUL
    with_masks = quantiser.depth if "dropout" in kind else 0  # how many vectors are kept
    assert text.count("psum") == starts + entropies + updates + with_masks


@pytest.mark.parametrize("kind", ["ema", "gradient"])
def test_a_dead_code_is_one_below_a_fraction_whatever_the_batch_size(kind):
    """Law 4: of three codes, one is used by a share of the vectors below the threshold."""
    update = "ema" if kind == "ema" else "gradient"
    spec = f"codebook:codes=3,update={update},start=normal,decay=0.5,revive=0.3"
    quantiser = quantisers.build(spec, 2)
    centres = np.float32([[0, 0], [9, 0], [0, 9]])

    def after(num, rare):
        """Batches of `num` vectors, `rare` of them at the third code: is it replaced by one?"""
        params, extra = quantiser.init(jax.random.key(0))
        if kind == "ema":
            extra = {**extra, "codes": jnp.asarray(centres), "total": jnp.asarray(centres)}
        else:
            params = {"codes": jnp.asarray(centres)}
        which = np.repeat([0, 1, 2], [num - num // 2 - rare, num // 2, rare])
        z = centres[which][:, None]
        index = jnp.arange(num)
        run = jax.jit(lambda extra, key: quantiser.quantise(params, extra, z, (key, index)).extra)
        revived = False
        for step in range(12):
            extra = run(extra, jax.random.key(step))
            revived |= bool(np.isclose(extra["count"][2], num / 3))
            if kind == "ema":  # the averages are those of the codes, also of new ones
                wanted = codebooks.centroids(extra["count"], extra["total"])
                np.testing.assert_allclose(extra["codes"], wanted, atol=1e-3)
        return revived, quantiser.decode(params, extra, jnp.arange(3)[:, None])

    for num in (20, 200):
        revived, codes = after(num, num * 15 // 100)  # 15 % > 0.3 / 3
        assert not revived
        np.testing.assert_allclose(codes, centres, atol=1e-3)
        assert after(num, num * 5 // 100)[0]


COMMITTED = [k for k, (spec, _) in KINDS.items() if not spec.startswith(("fsq", "gumbel"))]


@pytest.mark.parametrize("kind", COMMITTED)
def test_beta_weighs_the_term_of_the_encoder(kind):
    """Law 5: doubling β doubles what pulls z, and leaves what pulls the codes."""
    spec, options = KINDS[kind]

    def gradients(beta):
        joint = "," if ":" in spec else ":"
        quantiser = quantisers.build(
            f"{spec}{joint}beta={beta}", FEATURES, **{**options, "dropout": False}
        )
        params, extra = quantiser.init(jax.random.key(1))

        def loss(params, z):
            return sum(
                loss for name, loss in quantiser.assign(params, extra, z, None, None).losses.items()
            )

        return jax.grad(loss, argnums=(0, 1))(params, jnp.asarray(vectors(2)))

    (of_params, of_z), (twice_params, twice_z) = gradients(0.25), gradients(0.5)
    assert np.abs(of_z).max() > 0
    np.testing.assert_allclose(twice_z, 2 * of_z, rtol=1e-5, atol=1e-8)
    own = [
        params.get("quantiser", params) if isinstance(params, dict) else params
        for params in (of_params, twice_params)
    ]
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), *own)


@each
def test_products_are_exact(kind):
    """Law 6: float32 operands and the highest precision in every product."""
    quantiser, params, extra = built(kind)

    def run(z):
        return quantiser.quantise(params, extra, z.astype(jnp.bfloat16), train_of())

    text = str(jax.make_jaxpr(run)(vectors()))
    products = text.split("dot_general[")[1:]
    for product in products:
        assert "precision=(Precision.HIGHEST, Precision.HIGHEST)" in product.split("]")[0] + product
    result = quantiser.quantise(params, extra, jnp.asarray(vectors(), jnp.bfloat16), train_of())
    assert result.values.dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(result.extra))


@each
def test_masked_vectors_move_nothing(kind):
    """Law 7: losses, gradients and the state are those of other vectors in the masked places."""
    _, params, extra = trained(kind)
    mask = np.random.default_rng(5).random((BATCH, PLACES)) < 0.7
    z = vectors(3)
    other = np.where(mask[..., None], z, 50 * vectors(4))
    run = jax.jit(step_of(kind))
    (one, of_one), (two, of_two) = (run(params, extra, x, *train_of(3), mask) for x in (z, other))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, one.losses, two.losses)
    jax.tree.map(close, one.extra, two.extra)
    jax.tree.map(close, of_one[0], of_two[0])
    close(of_one[1][mask], of_two[1][mask])
    np.testing.assert_array_equal(of_two[1][~mask], 0)
    nothing = run(params, extra, z, *train_of(3), np.zeros_like(mask))[0]
    if "gumbel" not in kind:  # which counts its batches
        jax.tree.map(close, nothing.extra, extra)


FAR = ("ema", "ema_rotation", "gradient", "low", "grouped")


@pytest.mark.parametrize("kind", FAR)
def test_a_start_far_from_the_data_recovers(kind):
    """Law 8: codes started at the origin, of data far from it, come to be used."""
    spec, options = KINDS[kind]
    revived = spec.replace(",start=normal", "") + ",start=normal,revive=0.2,decay=0.8"
    frozen = revived.replace("revive=0.2", "revive=0.0")
    rng = np.random.default_rng(0)
    modes = 5 + 3 * rng.standard_normal((8, FEATURES))

    def used(spec, steps=30):
        quantiser = quantisers.build(spec, FEATURES, **options)
        params, extra = quantiser.init(jax.random.key(1))
        step = jax.jit(lambda extra, z, key: quantiser.quantise(params, extra, z, key).extra)
        for n in range(steps):
            z = np.float32(modes[rng.integers(0, 8, (32, 2))])
            extra = step(
                extra, z + 0.1 * vectors(n, 32)[:, :2], (jax.random.key(n), jnp.arange(32))
            )
        found = quantiser.quantise(params, extra, np.float32(modes)[:, None])
        return usage(np.asarray(found.indices), quantiser.codes)

    collapsed, cured = used(frozen), used(revived)
    assert cured.perplexity > 1.5 * collapsed.perplexity
    started = used(spec.replace(",start=normal", "") + ",revive=0.0", 2)
    assert started.perplexity > 1.3 * collapsed.perplexity


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_reaches_the_encoder(kind):
    """All values of z are pulled by what the decoder wants of them."""
    quantiser, params, extra = trained(kind)
    z = jnp.asarray(vectors(2))
    want = jax.random.normal(jax.random.key(0), z.shape)

    def loss(z):
        return (quantiser.assign(params, extra, z, train_of(1), None).values * want).sum()

    gradient = jax.grad(loss)(z)
    assert np.isfinite(gradient).all()
    reached = (np.abs(gradient).sum((0, 1)) > 0).mean()
    assert reached == 1


def test_straight_through_in_depth_is_the_identity():
    quantiser, params, extra = trained("residual")
    z = jnp.asarray(vectors(2))
    gradient = jax.grad(lambda z: quantiser.quantise(params, extra, z).values.sum())(z)
    np.testing.assert_allclose(gradient, 1, rtol=1e-6)


def test_each_depth_lowers_the_error():
    quantiser, params, extra = trained("residual", 4)
    z = jnp.asarray(vectors(1))
    indices = quantiser.quantise(params, extra, z).indices
    errors = [
        float(
            jnp.square(
                quantiser.decode(params, extra, jnp.where(jnp.arange(3) < d, indices, -1)) - z
            ).mean()
        )
        for d in range(4)
    ]
    assert errors[0] > errors[1] > errors[2] > errors[3]


def test_dropout_leaves_out_the_last_depths():
    quantiser, params, extra = trained("residual_dropout")
    found = quantiser.quantise(params, extra, vectors(2, 64), train_of(0, 64))
    number = np.asarray((found.indices >= 0).sum(-1))
    assert set(number[:, 0]) == {1, 2, 3}
    np.testing.assert_array_equal(number, number[:, :1].repeat(PLACES, 1))
    kept = np.arange(3) < number[..., None]
    np.testing.assert_array_equal(np.asarray(found.indices) >= 0, kept)


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


def test_every_quantiser_is_here():
    assert {spec.partition(":")[0] for spec, _ in KINDS.values()} == set(quantisers.names())
