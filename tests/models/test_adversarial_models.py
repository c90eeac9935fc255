"""The adversarial models against their networks and losses written out in NumPy, float64."""

import adversarial_problems as problems
import jax
import numpy as np
import optax
import pytest
from adversarial_problems import KEY, LARGE, SPEC, loss, made, softplus, wide

from rnngen_jax.ops.adversarial import LOSSES
from rnngen_jax.training.state import create
from rnngen_jax.training.step import train_step

PLAYERS = ("discriminator", "generator")
BATCH = problems.batch()
LABEL = BATCH["label"]

# By name: the discriminator's loss of real and generated scores (α is how far the label of real
# images is below 1), and the generator's.
FORMULAS = {
    "minimax": (
        lambda r, f, a: (1 - a) * softplus(-r) + a * softplus(r) + softplus(f),
        lambda r, f: -softplus(f),
    ),
    "non_saturating": (
        lambda r, f, a: (1 - a) * softplus(-r) + a * softplus(r) + softplus(f),
        lambda r, f: softplus(-f),
    ),
    "least_squares": (
        lambda r, f, a: ((r - 1 + a) ** 2 + f**2) / 2,
        lambda r, f: (f - 1) ** 2 / 2,
    ),
    "hinge": (
        lambda r, f, a: np.maximum(0, 1 - r) + np.maximum(0, 1 + f),
        lambda r, f: -f,
    ),
    "wasserstein": (lambda r, f, a: f - r, lambda r, f: -f),
    "relativistic": (lambda r, f, a: softplus(f - r), lambda r, f: softplus(r - f)),
}

CASES = {
    "minimax": {"loss": "minimax"},
    "smooth minimax": {"loss": "minimax", "label_smoothing": 0.2},
    "non_saturating": {"loss": "non_saturating", "label_smoothing": 0.1},
    "least_squares": {"loss": "least_squares", "label_smoothing": 0.1},
    "hinge": {"loss": "hinge"},
    "wasserstein": {"loss": "wasserstein"},
    "relativistic": {"loss": "relativistic"},
    "projection": {"class_conditional": True},
    "concat": {"class_conditional": True, "conditioning": "concat"},
    "auxiliary": {"class_conditional": True, "conditioning": "auxiliary"},
    "batch norm": {"norm": "batch", "discriminator_norm": "batch"},
    "norm by class": {"norm": "conditional_batch", "class_conditional": True},
    "codes": {"codes": 3, "traits": 2, "information": 0.7},
    "dropout": {"dropout": 0.4, "loss": "relativistic"},
    "augmentation": {"augmentation": "translation,cutout", "loss": "relativistic"},
    "uniform noise": {"noise_kind": "uniform"},
    "spectral": {"spectral": True},
    "penalty": {"penalty": "r1", "penalty_weight": 3.0},
    "penalty and spectral": {"penalty": "r1", "spectral": True},
}


def by_hand(fields):
    """Both losses of the MLP GAN, their metrics and what `extra` becomes, in NumPy."""
    fields = problems.TINY["mlp_gan"] | fields
    _, params, extra = made("mlp_gan", **fields)
    p, extra = wide(params), wide(extra)
    each = problems.each_key(None, "noise", BATCH["index"])
    vectors, code, traits = problems.noise_of(each, fields)
    conditional = fields.get("class_conditional", False)
    told = problems.with_class(vectors, LABEL, SPEC.classes) if conditional else vectors
    generated, own = problems.mlp_generator(p["generator"], told, LABEL)
    if "spectral" in extra:
        p["discriminator"], extra["spectral"] = problems.one_iteration(
            p["discriminator"], extra["spectral"]
        )
    rate = fields.get("dropout", 0.0)

    def judged(image, purpose):
        drop = (purpose, rate, None) if rate else None
        conditioning = fields.get("conditioning", "projection") if conditional else None
        return problems.verdict(
            p["discriminator"],
            lambda w, x, label: problems.mlp_body(w, x, label, drop),
            image,
            LABEL,
            conditioning,
        )

    image = problems.seen(BATCH["image"], "augment/real", fields)
    real, said, (of_real, above) = judged(image, "drop/real")
    generated = problems.seen(generated, "augment/fake", fields)
    fake, said_fake, (of_fake, _) = judged(generated, "drop/fake")
    first, second = FORMULAS[fields.get("loss", "non_saturating")]
    values = {
        "discriminator": first(real, fake, fields.get("label_smoothing", 0.0)).mean(),
        "generator": second(real, fake).mean(),
    }
    metrics = {
        "discriminator": {"discriminator_accuracy": (real > fake).mean()},
        "generator": {},
    }
    if "penalty" in fields:
        slope = problems.mlp_slope(p["discriminator"], above)
        penalty = (slope**2).sum(-1).mean() / 2
        metrics["discriminator"]["penalty"] = penalty
        values["discriminator"] += fields.get("penalty_weight", 10.0) * penalty
    if "class" in said:
        metrics["discriminator"]["class_nats"] = -problems.picked(said["class"], LABEL).mean()
        values["discriminator"] += metrics["discriminator"]["class_nats"]
        values["generator"] -= problems.picked(said_fake["class"], LABEL).mean()
    if "code" in said:
        bound = problems.information(said_fake, code, traits)
        metrics["generator"]["information_nats"] = bound
        values = {p: value - fields["information"] * bound for p, value in values.items()}
    return values, metrics, extra, {"generator": [own], "discriminator": [of_real, of_fake]}


def after_update(player, fields, extra, seen):
    """`extra` after one player's update."""
    shelf = extra.get(player, {}).get("batch_stats", {})
    shelf = shelf.get("body", shelf)
    for n in range(len(shelf)):
        old = shelf[f"BatchNorm_{n}"]
        mean, variance = problems.moved(
            (old["mean"], old["variance"]), *(moments[n] for moments in seen[player])
        )
        shelf[f"BatchNorm_{n}"] = {"mean": mean, "variance": variance}
    return extra


@pytest.mark.parametrize("player", PLAYERS)
@pytest.mark.parametrize("case", CASES)
def test_the_mlp_gan_is_the_one_written_out(case, player):
    fields = CASES[case]
    model, params, extra = made("mlp_gan", **fields)
    value, aux = loss(player, model, params, extra)
    values, metrics, moved, seen = by_hand(fields)
    np.testing.assert_allclose(value, values[player], rtol=2e-5, atol=1e-6)
    assert set(aux.metrics) == set(metrics[player])
    for name, wanted in metrics[player].items():
        np.testing.assert_allclose(aux.metrics[name], wanted, rtol=2e-5, atol=1e-6, err_msg=name)
    # Only the discriminator's update moves the power iteration, and it moves only its own running
    # moments: towards those of the real images, then towards those of the generated ones.
    if player == "generator":
        moved = {**moved, **({"spectral": extra["spectral"]} if "spectral" in extra else {})}
    expected = after_update(player, fields, moved, seen)
    assert jax.tree.structure(aux.extra) == jax.tree.structure(expected)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), aux.extra, expected
    )


def test_every_loss_is_among_the_cases():
    assert {fields.get("loss") for fields in CASES.values()} >= set(LOSSES) == set(FORMULAS)


def non_saturating(params, body, real, fake):
    """Both players' losses, of images as the discriminator sees them (Goodfellow et al. 2014)."""
    real, fake = (problems.verdict(params, body, images, LABEL)[0] for images in (real, fake))
    return {
        "discriminator": (softplus(-real) + softplus(fake)).mean(),
        "generator": softplus(-fake).mean(),
    }


@pytest.mark.parametrize("each", [True, False])
def test_the_gru_gan_is_the_one_written_out(each):
    fields = {"noise_each": each, "step": "row" if each else "patch"}
    model, params, extra = made("gru_gan", **fields)
    p, steps = wide(params), 2 if each else 4
    keys = problems.each_key(None, "noise", BATCH["index"])
    vectors, _, _ = problems.noise_of(keys, problems.TINY["gru_gan"], steps if each else 1)
    generated = problems.rnn_generator(p["generator"], vectors, steps, (2, 2))
    image = problems.seen(BATCH["image"], "augment/real", {})
    wanted = non_saturating(p["discriminator"], problems.rnn_judge, image, generated)
    for player in PLAYERS:
        got, _ = loss(player, model, params, extra)
        np.testing.assert_allclose(got, wanted[player], rtol=2e-5)


@pytest.mark.parametrize("attention", [False, True])
def test_dcgan_is_the_one_written_out(attention):
    data = problems.batch(LARGE)
    fields = {"attention": attention, "discriminator_norm": "batch"}
    model, params, extra = made("dcgan", LARGE, **fields)
    p = wide(params)
    each = problems.each_key(None, "noise", data["index"])
    vectors, _, _ = problems.noise_of(each, problems.TINY["dcgan"])
    generated = problems.dcgan_generator(p["generator"], vectors, LABEL)
    image = problems.seen(data["image"], "augment/real", {}, LARGE)
    wanted = non_saturating(p["discriminator"], problems.dcgan_body, image, generated)
    for player in PLAYERS:
        got, _ = loss(player, model, params, extra, data)
        np.testing.assert_allclose(got, wanted[player], rtol=5e-5)


# Which player trains what.


def gradient(player, model, params, extra):
    """The gradient of a player's loss with respect to both players' parameters."""
    return jax.jit(jax.grad(lambda p: loss(player, model, p, extra)[0]))(params)


def is_zero(tree):
    return not any(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("mlp_gan", {"norm": "batch", "codes": 2, "penalty": "r1_r2"}),
        ("gru_gan", {"cell": "none", "share": "generator"}),
    ],
)
def test_the_discriminators_loss_has_no_gradient_in_the_generator(name, fields):
    found = gradient("discriminator", *made(name, **fields))
    assert is_zero(found["generator"])
    assert all(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(found["discriminator"]))


@pytest.mark.parametrize(
    ("name", "frozen", "fields"),
    [
        ("mlp_gan", "discriminator", {}),
        ("mlp_gan", "generator", {}),
        ("gru_gan", "discriminator", {"cell": "none", "share": "discriminator"}),
        ("gru_gan", "generator", {"cell": "none", "share": "generator"}),
    ],
)
def test_a_player_who_does_not_move_stays_bit_equal(name, frozen, fields):
    """Also the kernels that it lends; the other player is trained in all of its own parameters."""
    model, params, extra = made(name, **fields)
    chains = {p: optax.set_to_zero() if p == frozen else optax.sgd(0.1) for p in PLAYERS}
    state = create(model, chains, 0)._replace(params=params, extra=extra)
    step = jax.jit(train_step(model, chains, 0.0, lambda batch, key: batch))
    after, _ = step(state, BATCH, KEY)
    (other,) = set(PLAYERS) - {frozen}
    jax.tree.map(np.testing.assert_array_equal, after.params[frozen], params[frozen])
    moved = jax.tree.map(lambda a, b: np.any(a != b), after.params[other], params[other])
    assert all(jax.tree.leaves(moved))


def shelf(params, player):
    return params["body"] if player == "discriminator" else params


@pytest.mark.parametrize("owner", PLAYERS)
def test_both_players_use_the_owners_kernels(owner):
    model, params, extra = made("gru_gan", cell="none", share=owner)
    plain, _, _ = made("gru_gan", cell="none")
    (other,) = set(PLAYERS) - {owner}
    lent = {name: shelf(params[owner], owner)[name] for name in ("near_0", "near_1")}
    assert not set(lent) & set(shelf(params[other], other))
    # The same numbers as with a copy for the other player, and the same gradient for the owner: the
    # borrower's use of the kernels adds nothing to it.
    whole = {**shelf(params[other], other), **lent}
    whole = {**params[other], "body": whole} if other == "discriminator" else whole
    apart = {**params, other: whole}
    for player in PLAYERS:
        values = [loss(player, *of, extra)[0] for of in ((model, params), (plain, apart))]
        np.testing.assert_allclose(*values, rtol=1e-6)
    found, wanted = (gradient(owner, *of, extra) for of in ((model, params), (plain, apart)))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
        found[owner],
        wanted[owner],
    )
    found = gradient(other, model, params, extra)
    near = {name: shelf(found[owner], owner)[name] for name in lent}
    if other == "discriminator":
        assert is_zero(near)  # its images are constants, and so are the kernels it borrows
    else:  # all that is there comes by way of the owner's judgement
        wanted = gradient(other, plain, apart, extra)
        wanted = {name: shelf(wanted[owner], owner)[name] for name in lent}
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), near, wanted
        )
