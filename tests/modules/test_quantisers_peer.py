"""Quantisers against vector-quantize-pytorch on the same inputs, gradients included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnngen_jax.modules import quantisers

torch = pytest.importorskip("torch")
peers = pytest.importorskip("vector_quantize_pytorch", reason="the extra bench")

RNG = np.random.default_rng(0)
Z = np.float32(RNG.standard_normal((8, 5, 4)))
WANT = np.float32(RNG.standard_normal((8, 5, 4)))
TABLES = np.float32(RNG.standard_normal((3, 16, 4)))
FAIR = 40 / 16  # vectors per code, our count before the first batch; theirs would be 1
TRAIN = (jax.random.key(0), jnp.arange(8))


def close(one, other, rtol=1e-5, atol=2e-6):
    np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=rtol, atol=atol)


def ours(spec, tables, width=4, **options):
    """The quantised vectors, and the gradient of a linear loss of them plus the losses."""
    quantiser = quantisers.build(spec, width, **options)
    params, extra = quantiser.init(jax.random.key(0))
    if tables is not None:
        each = extra if isinstance(extra, list) else [extra]
        each = [
            {**one, "codes": jnp.asarray(t), "total": jnp.asarray(t)}
            for one, t in zip(each, tables, strict=True)
        ]
        extra = each if isinstance(extra, list) else each[0]

    def loss(z):
        found = quantiser.quantise(params, extra, z, TRAIN)
        return (found.values * WANT[..., :width]).sum() + sum(found.losses.values(), 0.0), found

    gradient, found = jax.grad(loss, has_aux=True)(jnp.asarray(Z[..., :width]))
    return found, gradient


def theirs(module, width=4):
    z = torch.tensor(Z[..., :width], requires_grad=True)
    found = module.train()(z)
    values = found[0]
    loss = (values * torch.tensor(WANT[..., :width])).sum()
    for extra in found[2:]:
        loss = loss + extra.sum()
    loss.backward()
    return found, z.grad


@pytest.mark.parametrize("rotation", [False, True])
def test_a_codebook_of_moving_averages(rotation):
    module = peers.VectorQuantize(4, 16, decay=0.9, commitment_weight=0.25, rotation_trick=rotation)
    module._codebook.embed.data = torch.tensor(TABLES[:1])
    module._codebook.embed_avg.data = FAIR * torch.tensor(TABLES[:1])
    module._codebook.cluster_size.data = FAIR * torch.ones(1, 16)
    (values, indices, loss), gradient = theirs(module)
    estimator = "rotation" if rotation else "straight_through"
    spec = f"codebook:codes=16,decay=0.9,start=normal,revive=0.0,estimator={estimator}"
    found, own = ours(spec, TABLES[:1])
    np.testing.assert_array_equal(found.indices[..., 0], indices)
    close(found.values, values.detach())
    close(found.losses["commitment"], loss.item())
    close(own, gradient, 1e-4, 1e-5)
    close(found.extra["codes"], module._codebook.embed[0])
    close(found.extra["count"], module._codebook.cluster_size[0])


def test_residual_codebooks():
    """Their straight-through gradient is multiplied by the depth; the losses' is compared."""
    module = peers.ResidualVQ(
        dim=4, num_quantizers=3, codebook_size=16, decay=0.9, rotation_trick=False
    )
    for layer, table in zip(module.layers, TABLES, strict=True):
        layer._codebook.embed.data = torch.tensor(table[None])
        layer._codebook.embed_avg.data = FAIR * torch.tensor(table[None])
        layer._codebook.cluster_size.data = FAIR * torch.ones(1, 16)
    z = torch.tensor(Z, requires_grad=True)
    values, indices, losses = module.train()(z)
    losses.mean().backward()
    spec = "codebook:codes=16,decay=0.9,start=normal,revive=0.0,beta=1.0"
    found, _ = ours(spec, TABLES, depth=3)
    np.testing.assert_array_equal(found.indices, indices)
    close(found.values, values.detach(), 1e-4, 1e-5)
    close(found.losses["commitment"], losses.mean().item())
    for own, layer in zip(found.extra, module.layers, strict=True):
        close(own["codes"], layer._codebook.embed[0], 1e-4, 1e-5)

    quantiser = quantisers.build(spec, 4, depth=3)
    params, extra = quantiser.init(jax.random.key(0))
    extra = [{**one, "codes": t} for one, t in zip(extra, jnp.asarray(TABLES), strict=True)]
    committed = jax.grad(lambda z: quantiser.quantise(params, extra, z).losses["commitment"])
    close(committed(jnp.asarray(Z)), z.grad, 1e-4)


def test_finite_scalars():
    """Their bound is wider than the paper's by 0.2 %, so gradients agree to that."""
    levels = [8, 5, 5, 4]
    (values, indices), gradient = theirs(peers.FSQ(levels))
    found, own = ours("fsq:levels=8x5x5x4", None)
    np.testing.assert_array_equal(found.indices[..., 0], indices)
    close(found.values, values.detach())
    close(own, gradient, 0.02, 5e-3)


@pytest.mark.parametrize("spherical", [False, True])
def test_signs(spherical):
    module = peers.LFQ(dim=4, codebook_size=16, commitment_loss_weight=0.25, spherical=spherical)
    z = torch.tensor(Z, requires_grad=True)
    values, _, loss = module.train()(z, inv_temperature=1.5)
    ((values * torch.tensor(WANT)).sum() + loss).backward()
    found, own = ours(f"{'bsq' if spherical else 'lfq'}:bits=4,sharpness=1.5,group=4", None)
    close(found.values, values.detach())
    close(sum(found.losses.values()), loss.item(), 1e-4)
    close(own, z.grad, 1e-4, 1e-5)
