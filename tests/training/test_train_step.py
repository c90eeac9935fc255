"""The step: players' updates, what each sees, the moving average, the noise."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import training_toys as toys

from rnngen_jax import keys
from rnngen_jax.data.feed import fetch
from rnngen_jax.models.base import Aux
from rnngen_jax.training.privacy import Privacy, noised
from rnngen_jax.training.state import create, evaluated_params
from rnngen_jax.training.step import Updates, many_steps, most_updates, train_step

IMAGES, LABELS = toys.split().read(np.arange(8))
BATCH = {"image": IMAGES, "label": LABELS, "index": np.arange(8, dtype=np.int32)}
KEY = jax.random.key(3)


def start(model, optimizer=None, ema=False):
    optimizers = dict.fromkeys(model.losses, optimizer or optax.sgd(0.1))
    return optimizers, create(model, optimizers, 0, ema)


def close(left, right):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), left, right)


def test_a_step_is_one_gradient_step():
    model = toys.autoencoder()
    optimizers, state = start(model)
    after, metrics = train_step(model, optimizers, 0.0, toys.keep)(state, BATCH, KEY)

    def loss(own):
        key = keys.named(KEY, "loss/model")
        return model.losses["model"]({"model": own}, state.extra, BATCH, key, state.step)[0]

    value, gradient = jax.value_and_grad(loss)(state.params["model"])
    expected = jax.tree.map(lambda w, g: w - 0.1 * g, state.params["model"], gradient)
    close(after.params["model"], expected)
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(gradient)))
    np.testing.assert_allclose(metrics["grad_norm/model"], norm, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss/model"], value, rtol=1e-6)
    assert set(metrics) == {"loss/model", "grad_norm/model", "brightness"}
    assert after.step == 1
    assert after.extra["seen"] == 1


@pytest.mark.parametrize("kind", ["autoencoder", "adversaries", "private"])
def test_micro_batches_add_up_to_the_gradient_of_the_whole(kind):
    model = toys.autoencoder() if kind == "autoencoder" else toys.adversaries()
    updates = {"discriminator": Updates(2, Privacy(0.5, 0.01) if kind == "private" else None)}
    updates = {} if kind == "autoencoder" else updates
    optimizers, state = start(model)

    def step(parts):
        made = train_step(model, optimizers, 0.0, toys.keep, updates, micro_batches=parts)
        return made(state, BATCH, KEY)

    whole, wanted = step(1)
    after, metrics = step(2)
    close(after.params, whole.params)
    for each in (metrics, wanted):
        each.pop("came_after", None)  # which a part's extra tells
    close(metrics, wanted)
    player = next(iter(model.losses))
    assert np.abs(flat_change(whole, state, player)).max() > 1e-4
    if kind == "autoencoder":  # each part hands its extra on
        assert after.extra["seen"] == 2


def flat_change(after, before, player):
    leaves = zip(*(jax.tree.leaves(each.params[player]) for each in (after, before)), strict=True)
    return np.concatenate([np.ravel(a - b) for a, b in leaves])


def test_players_are_updated_one_after_the_other_each_in_its_own_branch():
    model = toys.adversaries()
    optimizers, state = start(model)
    after, metrics = train_step(model, optimizers, 0.0, toys.keep)(state, BATCH, KEY)

    def moved(player, params, extra):
        def loss(own):
            key = keys.named(KEY, f"loss/{player}")
            everyone = {**params, player: own}
            return model.losses[player](everyone, extra, BATCH, key, state.step)[0]

        gradient = jax.grad(loss)(params[player])
        own = jax.tree.map(lambda w, g: w - 0.1 * g, params[player], gradient)
        return {**params, player: own}

    first = moved("discriminator", state.params, state.extra)
    close(first["generator"], state.params["generator"])
    # The generator, second in `losses`, plays against the discriminator as it is by then.
    both = moved("generator", first, state.extra)
    close(after.params, both)
    assert metrics["came_after"] == 0  # the extra that the discriminator handed on
    assert after.extra["moves"] == 2
    assert after.extra["last"] == 1
    assert {"loss/generator", "loss/discriminator", "grad_norm/generator"} <= set(metrics)


@pytest.mark.parametrize("counts", [(3, 1), (1, 3), (2, 2)], ids=str)
def test_update_i_sees_every_nth_example_from_the_ith_on(counts):
    """The updates one by one, each as a step of its own of a model with that player alone."""
    model = toys.adversaries()
    players = dict(zip(model.losses, counts, strict=True))
    updates = {player: Updates(count) for player, count in players.items() if count > 1}
    parts = most_updates(updates)
    assert parts == max(counts)
    images, labels = toys.split().read(np.arange(4 * parts))
    index = np.arange(4 * parts, dtype=np.int32)
    data = {"image": images, "label": labels, "index": index}
    chains, state = start(model, optax.adam(0.1))
    step = jax.jit(train_step(model, chains, 0.0, toys.keep, updates=updates))
    after, metrics = step(state, data, KEY)

    expected, seen = state, {}
    for player, count in players.items():
        key = keys.named(KEY, f"loss/{player}")
        for i in range(count):
            part = jax.tree.map(lambda x, i=i: x[i::parts], data)
            update_key = jax.random.fold_in(key, i) if count > 1 else key

            def loss(own, player=player, part=part, update_key=update_key, state=expected):
                everyone = {**state.params, player: own}
                return model.losses[player](everyone, state.extra, part, update_key, state.step)

            (value, aux), gradient = jax.value_and_grad(loss, has_aux=True)(expected.params[player])
            change, opt = chains[player].update(gradient, expected.opt_state[player])
            own = optax.apply_updates(expected.params[player], change)
            expected = expected._replace(
                params={**expected.params, player: own},
                opt_state={**expected.opt_state, player: opt},
                extra=aux.extra,
            )
            told = {f"loss/{player}": value, f"grad_norm/{player}": optax.tree.norm(gradient)}
            for name, number in {**told, **aux.metrics}.items():
                seen.setdefault(name, []).append(number)
    close(after, expected._replace(step=jnp.int32(1)))
    assert after.extra["moves"] == sum(counts)
    assert metrics.keys() == seen.keys()
    for name, values in seen.items():
        np.testing.assert_allclose(metrics[name], np.mean(values), rtol=1e-5, err_msg=name)


def test_without_more_updates_a_step_takes_one_batch():
    assert most_updates({}) == most_updates({"generator": Updates()}) == 1


def test_a_private_gradient_is_the_mean_of_clipped_ones_of_single_examples():
    """Without noise, against a loop over the examples; the other player's stays a plain one."""
    model = toys.adversaries()
    chains, state = start(model)
    clip = 0.15
    updates = {"discriminator": Updates(1, Privacy(0.0, clip))}
    step = jax.jit(train_step(model, chains, 0.0, toys.keep, updates=updates))
    after, metrics = step(state, BATCH, KEY)
    plain, told = train_step(model, chains, 0.0, toys.keep)(state, BATCH, KEY)
    own, key = state.params["discriminator"], keys.named(KEY, "loss/discriminator")

    def loss(own, example):
        everyone = {**state.params, "discriminator": own}
        return model.losses["discriminator"](everyone, state.extra, example, key, state.step)[0]

    total, longer = np.zeros((4, 1)), 0
    for i in range(8):
        example = {name: value[i : i + 1] for name, value in BATCH.items()}
        gradient = np.float64(jax.grad(loss)(own, example)["kernel"])
        norm = np.linalg.norm(gradient)
        longer += norm > clip
        total += gradient * min(1, clip / norm)
    assert 0 < longer < 8
    np.testing.assert_allclose(
        after.params["discriminator"]["kernel"], own["kernel"] - 0.1 * total / 8, rtol=1e-5
    )
    np.testing.assert_allclose(
        metrics["grad_norm/discriminator"], np.linalg.norm(total / 8), rtol=1e-5
    )
    # The loss and the metrics are those of the whole batch, and `extra` moves once.
    for name in ("loss/discriminator", "gap"):
        np.testing.assert_allclose(metrics[name], told[name], rtol=1e-5)
    close(after.extra, plain.extra)
    assert not np.allclose(
        after.params["discriminator"]["kernel"], plain.params["discriminator"]["kernel"]
    )


@pytest.mark.parametrize("count", [1, 2])
def test_private_noise_is_drawn_in_every_update_from_a_key_of_its_own(count):
    """Clipped so short that the gradients themselves hardly count."""
    model, noise, clip = toys.adversaries(), 1e3, 1e-3
    chains, state = start(model)
    updates = {"discriminator": Updates(count, Privacy(noise, clip))}
    after, _ = jax.jit(train_step(model, chains, 0.0, toys.keep, updates=updates))(
        state, BATCH, KEY
    )
    key, wanted = keys.named(KEY, "loss/discriminator"), 0.0
    for i in range(count):
        own = keys.named(jax.random.fold_in(key, i) if count > 1 else key, "privacy")
        nothing = {"kernel": jnp.zeros((4, 1))}
        noise_alone = noised(nothing, Privacy(noise, clip), 8 // count, own)
        wanted -= 0.1 * np.asarray(noise_alone["kernel"])
    assert np.abs(wanted).min() > 1e-3
    found = after.params["discriminator"]["kernel"] - state.params["discriminator"]["kernel"]
    np.testing.assert_allclose(found, wanted, atol=1.1 * count * 0.1 * clip)


def test_each_player_has_its_own_optimizer_state():
    model = toys.adversaries()
    optimizers, state = start(model, optax.adam(0.1))
    after, _ = train_step(model, optimizers, 0.0, toys.keep)(state, BATCH, KEY)
    means = {player: after.opt_state[player][0].mu["kernel"] for player in model.losses}
    assert means["generator"].shape == (3, 4)
    assert means["discriminator"].shape == (4, 1)
    assert all(np.any(np.asarray(mean)) for mean in means.values())


def test_moving_average_is_written_out_and_evaluated():
    model = toys.autoencoder()
    optimizers, state = start(model, ema=True)
    step = train_step(model, optimizers, 0.2, toys.keep)
    expected = state.params
    for number in range(3):
        state, _ = step(state, BATCH, jax.random.key(number))
        decay = [0.1, 2 / 11, 0.2][number]  # (1 + t) / (10 + t), but at most 0.2
        expected = jax.tree.map(lambda e, w, d=decay: d * e + (1 - d) * w, expected, state.params)
    close(evaluated_params(state), expected)
    assert evaluated_params(state._replace(ema=None)) is state.params


def test_transform_loss_and_steps_have_noise_of_their_own():
    seen = {}

    def transform(batch, key):
        seen["transform"] = key
        return batch

    base = toys.adversaries()

    def spy(player):
        def loss(params, extra, batch, key, step):
            seen[player] = key
            return base.losses[player](params, extra, batch, key, step)

        return loss

    model = base._replace(losses={player: spy(player) for player in base.losses})
    optimizers, state = start(model)
    train_step(model, optimizers, 0.0, transform)(state, BATCH, KEY)
    bits = {tuple(np.asarray(jax.random.key_data(key)).tolist()) for key in seen.values()}
    assert len(bits) == 3
    assert jnp.array_equal(
        jax.random.key_data(seen["generator"]),
        jax.random.key_data(keys.named(KEY, "loss/generator")),
    )


def test_the_key_of_a_step_is_folded_from_its_number():
    def draws(params, extra, batch, key, step):
        noise = jax.random.uniform(key)
        return noise + 0 * jnp.sum(params["model"]["encoder"]["kernel"]), Aux({}, extra)

    model = toys.autoencoder()._replace(losses={"model": draws})
    optimizers, state = start(model)
    call = many_steps(train_step(model, optimizers, 0.0, toys.keep), fetch, seed=7)
    chunk = {name: np.stack([value] * 3) for name, value in BATCH.items()}
    _, metrics = call(state, None, chunk)
    expected = [
        jax.random.uniform(keys.named(jax.random.fold_in(jax.random.key(7), step), "loss/model"))
        for step in range(3)
    ]
    np.testing.assert_array_equal(metrics["loss/model"], expected)


def test_create_is_a_function_of_the_seed():
    model = toys.autoencoder()
    optimizers = {"model": optax.sgd(0.1)}
    one, two, other = (create(model, optimizers, seed) for seed in (1, 1, 2))
    close(one.params, two.params)
    kernel = ("model", "encoder", "kernel")
    assert not np.array_equal(_at(one.params, kernel), _at(other.params, kernel))


def _at(tree, path):
    for name in path:
        tree = tree[name]
    return tree
