"""The step: players' turns, what each sees, the moving average, the noise."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import training_toys as toys

from rnngen_jax import keys
from rnngen_jax.data.feed import fetch
from rnngen_jax.models.base import Aux
from rnngen_jax.training.state import create, evaluated_params
from rnngen_jax.training.step import many_steps, train_step

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


def test_players_take_turns_each_in_its_own_branch():
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
