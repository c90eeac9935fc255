"""Samples of adversarial models, growing, and power iteration, against NumPy."""

import adversarial_problems as problems
import jax
import numpy as np
import pytest
from adversarial_problems import KEY, LARGE, SPEC, B, blocks, loss, made, softplus, wide

LABEL = problems.batch()["label"]


@pytest.mark.parametrize(
    ("name", "fields", "count"),
    [
        ("mlp_gan", {"class_conditional": True, "conditioning": "concat"}, 3),
        ("dcgan", {"norm": "none", "attention": True, "class_conditional": True}, 7),
        ("gru_gan", {"discriminator": "recurrent", "share": "none"}, 4),
        ("gru_gan", {"cell": "none", "share": "generator"}, 5),
    ],
)
def test_after_many_steps_the_largest_singular_values_are_those_divided_by(name, fields, count):
    model, params, extra = made(name, spectral=True, **fields)

    @jax.jit
    def updates(params, extra):
        def update(extra, _):
            return loss("discriminator", model, params, extra)[1].extra, None

        return jax.lax.scan(update, extra, None, length=400)[0]

    extra = updates(params, extra)
    assert len(extra["spectral"]) == count
    weights = dict(params["discriminator"])
    if fields.get("share") == "generator":
        weights["body"] = params["generator"] | weights["body"]
    for path, u in wide(extra["spectral"]).items():
        kernel = weights
        for part in path.split("/"):
            kernel = kernel[part]
        matrix = np.float64(kernel).reshape(-1, kernel.shape[-1])
        # u is of length 1, so |W u| is the σ that the kernel is used over.
        used = np.linalg.svd(matrix / np.linalg.norm(matrix @ u), compute_uv=False)
        np.testing.assert_allclose(used[0], 1, atol=1e-3, err_msg=path)


def test_a_converged_power_iteration_judges_with_kernels_of_norm_1():
    """Of the loss itself, with the largest singular values from NumPy's SVD."""
    model, params, extra = made("mlp_gan", spectral=True)
    vectors = wide(extra["spectral"])
    for _ in range(60):
        _, vectors = problems.one_iteration(wide(params["discriminator"]), vectors)
    p = wide(params)
    plain = p["discriminator"]
    for holder in (*plain["body"].values(), plain["score"]):
        holder["kernel"] = holder["kernel"] / np.linalg.svd(holder["kernel"])[1][0]
    unnormalised, _, _ = made("mlp_gan")
    got, _ = loss("discriminator", model, params, {"spectral": vectors})
    wanted, _ = loss("discriminator", unnormalised, p, {})
    np.testing.assert_allclose(got, wanted, rtol=1e-3)


GROW = {"grow": 3, "norm": "none"}


def test_resolutions_come_in_one_after_the_other():
    model, params, extra = made("dcgan", LARGE, **GROW)
    data = problems.batch(LARGE)
    after = jax.jit(lambda step: loss("discriminator", model, params, extra, data, step)[1].extra)
    shares = np.stack([after(step)["schedule"]["fade"] for step in range(0, 16)])
    second = np.clip((np.arange(16) - 3) / 3, 0, 1)  # alone, in between, alone, in between, whole
    third = np.clip((np.arange(16) - 9) / 3, 0, 1)
    np.testing.assert_allclose(shares, np.stack([second, third], axis=1), atol=1e-6)


@pytest.mark.parametrize(
    ("step", "shares"), [(0, (0, 0)), (5, (2 / 3, 0)), (10, (1, 1 / 3)), (12, (1, 1))]
)
def test_a_growing_pair_blends_its_resolutions(step, shares):
    """At first images are the smallest one doubled, real images too; at last the network's own."""
    model, params, extra = made("dcgan", LARGE, **GROW)
    data, p = problems.batch(LARGE), wide(params)
    each = problems.each_key(None, "noise", data["index"])
    z, _, _ = problems.noise_of(each, problems.TINY["dcgan"])
    fake = problems.grown(p["generator"], z, shares)
    real = problems.seen(data["image"], "augment/real", {}, LARGE)
    blurred = blocks(real, 4) + shares[0] * (blocks(real, 2) - blocks(real, 4))
    blurred = blurred + shares[1] * (real - blurred)
    if step == 0:
        np.testing.assert_allclose(blocks(fake, 4), fake, atol=1e-12)
        np.testing.assert_allclose(blocks(blurred, 4), blurred, atol=1e-12)
    scores = [
        problems.verdict(
            p["discriminator"], lambda w, x, _: problems.judged_small(w, x, shares), x, None
        )[0]
        for x in (blurred, fake)
    ]
    value, aux = loss("discriminator", model, params, extra, data, step)
    np.testing.assert_allclose(
        value, (softplus(-scores[0]) + softplus(scores[1])).mean(), rtol=2e-5
    )
    # The generator and the sampler use the weights of the discriminator's last update.
    value, _ = loss("generator", model, params, aux.extra, data, step)
    np.testing.assert_allclose(value, softplus(-scores[1]).mean(), rtol=2e-5)
    z, _, _ = problems.noise_of(jax.random.split(KEY, B), problems.TINY["dcgan"])
    np.testing.assert_array_equal(
        model.sample(params, aux.extra, KEY, B), levels(problems.grown(p["generator"], z, shares))
    )


def levels(images):
    return np.clip(np.round((images + 1) / 2 * 16), 0, 16).astype(np.uint8)


def sampled(name, label=None, key=KEY, temperature=1.0, gain=1.0, **fields):
    """Samples with parameters times `gain`; the larger it is, the more they differ."""
    model, params, extra = made(name, **fields)
    params = jax.tree.map(lambda leaf: gain * leaf, params)
    return np.asarray(model.sample(params, extra, key, B, label, temperature))


def test_samples_go_by_the_running_moments_and_the_label():
    fields = {"norm": "conditional_batch", "class_conditional": True}
    _, params, extra = made("mlp_gan", **fields)
    p, stats = wide(params["generator"]), wide(extra["generator"]["batch_stats"])
    running = [
        (stats[f"BatchNorm_{n}"]["mean"], stats[f"BatchNorm_{n}"]["variance"]) for n in (0, 1)
    ]
    z, _, _ = problems.noise_of(jax.random.split(KEY, B), problems.TINY["mlp_gan"])
    images, _ = problems.mlp_generator(
        p, problems.with_class(z, LABEL, SPEC.classes), LABEL, running=running
    )
    np.testing.assert_array_equal(sampled("mlp_gan", LABEL, **fields), levels(images))


@pytest.mark.parametrize(("name", "gain"), [("mlp_gan", 1.0), ("dcgan", 3.0), ("gru_gan", 1.0)])
def test_samples_are_levels_and_a_function_of_key_temperature_and_label(name, gain):
    images = sampled(name, gain=gain)
    assert images.dtype == np.uint8
    assert images.shape == (B, *SPEC.shape)
    assert images.max() < SPEC.levels
    assert len(np.unique(images)) > 3
    np.testing.assert_array_equal(images, sampled(name, gain=gain))
    np.testing.assert_array_equal(images, sampled(name, LABEL, gain=gain))  # which does not matter
    assert not np.array_equal(images, sampled(name, gain=gain, key=jax.random.key(9)))
    still = sampled(name, gain=gain, temperature=0.0)
    np.testing.assert_array_equal(still, np.broadcast_to(still[:1], still.shape))
    assert np.any(images != images[:1])
    told = {"class_conditional": True, "norm": "conditional_batch"}
    one, other = (sampled(name, np.full(B, k), gain=gain, **told) for k in (0, 1))
    assert np.all(np.any(one != other, axis=(1, 2, 3)))
