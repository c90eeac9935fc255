"""The video RNN: a distribution over sequences, causal over frames, drawn as it is scored."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frame_models import (
    batch_of,
    built,
    digits_of,
    every_sequence,
    random_frames,
)

from rnngen_jax import models
from rnngen_jax.errors import UserError
from rnngen_jax.evaluation import codec
from rnngen_jax.models import feeding
from rnngen_jax.modules.video_rnn import repeating
from rnngen_jax.shapes import ImageSpec

KEY = jax.random.key(3)
BINARY = ImageSpec(2, 2, levels=2, frames=3)
GREY = ImageSpec(1, 2, levels=3, frames=3)
COLOUR = ImageSpec(2, 1, channels=2, levels=2, frames=2)
LABELLED = ImageSpec(1, 2, levels=2, classes=3, frames=3)
LONG = ImageSpec(4, 6, levels=5, frames=5)
PATCHES = {"encoder": "patches:size=1"}
MAPS = {"maps": True, "input_features": 128}
TINY = [
    ({"readout": "bernoulli", "cell": "lstm"}, BINARY),
    ({"readout": "logistic_mixture", "last": False, **PATCHES}, GREY),
    ({"readout": "categorical", "layers": 2, "residual": True, **PATCHES}, GREY),
    ({"readout": "gaussian", "learned_carry": True, "cell": "min_gru", **PATCHES}, GREY),
    ({"readout": "bernoulli", "cell": "conv_lstm:peepholes=True", **MAPS, **PATCHES}, COLOUR),
    ({"readout": "bernoulli", "cell": "st_lstm", "layers": 2, **MAPS, **PATCHES}, COLOUR),
    ({"class_conditional": True, **MAPS, **PATCHES}, LABELLED),
]
LARGE = [
    ({}, LONG),
    ({"encoder": "patches:size=2", "cell": "conv_gru", **MAPS}, LONG),
    ({"encoder": "patches:size=2", "cell": "st_lstm", "layers": 2, **MAPS}, LONG),
    ({"readout": "logistic_mixture", "encoder": "convolutions:stages=2"}, LONG),
    ({"class_conditional": True, "layers": 2}, LONG._replace(classes=2, channels=3)),
]


def named(case):
    return "-".join(str(value) for value in case[0].values()) or "default"


@functools.cache
def compiled(number):
    """A large case: the model, its parameters, and compiled conditionals of 6 sequences."""
    model, params, extra = built(*LARGE[number])
    found = jax.jit(model.conditionals)
    return model, params, extra, functools.partial(found, params, extra)


@functools.cache
def jitted(model_function, **options):
    """A compiled function of parameters."""
    return jax.jit(functools.partial(model_function, **options))


def forecast_of(model, params, context, horizon, key=KEY, fed="sample"):
    call = jitted(model.sequential.forecast, horizon=horizon, fed=fed)
    return call(params, {}, key, context)


def means_of(model, params, frames):
    return jitted(model.sequential.teacher_forced)(params, {}, batch_of(frames), KEY)


def log_p_of(model, params, frames, label=0):
    return np.float64(jitted(model.log_prob)(params, {}, batch_of(frames, label), KEY))


EACH_LARGE = pytest.mark.parametrize("number", range(len(LARGE)), ids=map(named, LARGE))


@pytest.mark.parametrize("case", TINY, ids=named)
def test_all_sequences_together_have_probability_one(case):
    model, params, _ = built(*case)
    for label in range(max(model.spec.classes, 1)):
        log_p = log_p_of(model, params, every_sequence(model.spec), label)
        np.testing.assert_allclose(np.exp(log_p).sum(), 1.0, atol=1e-6)


@EACH_LARGE
def test_step_by_step_outputs_are_the_teacher_forced_ones(number):
    model, params, extra, conditionals = compiled(number)
    frames = random_frames(model.spec)
    label = np.arange(6, dtype=np.int32) % max(model.spec.classes, 1)
    walk = jax.jit(model.walk)
    for share in (1.0, 0.5):
        known = np.random.default_rng(2).random(frames.shape[:-1]) < share
        completed, raw = walk(params, extra, KEY, frames, known, label)
        np.testing.assert_allclose(raw, conditionals(completed, label), atol=1e-5)
        np.testing.assert_array_equal(np.asarray(completed)[known], frames[known])
        assert (completed != frames).any() == (share < 1)


@EACH_LARGE
def test_no_frame_depends_on_itself_or_a_later_one_to_the_bit(number):
    model, _, _, conditionals = compiled(number)
    frames = random_frames(model.spec)
    label = np.zeros(6, np.int32)
    before = np.asarray(conditionals(frames, label))
    for t in range(model.spec.frames):
        changed = frames.copy()
        changed[:, t:] = (changed[:, t:] + 1) % model.spec.levels
        after = np.asarray(conditionals(changed, label))
        np.testing.assert_array_equal(after[:, : t + 1], before[:, : t + 1])
        if t + 1 < model.spec.frames:  # not in vain: the next frame does depend on it
            assert (after[:, t + 1] != before[:, t + 1]).any()


def test_what_each_frame_adds_sums_to_the_whole_and_means_are_the_likelihoods():
    model, params, extra, conditionals = compiled(0)
    batch = batch_of(random_frames(model.spec))
    each = model.sequential.log_probs(params, extra, batch, KEY)
    assert each.shape == (6, 5)
    np.testing.assert_allclose(each.sum(1), model.log_prob(params, extra, batch, KEY), rtol=1e-5)
    means = model.sequential.teacher_forced(params, extra, batch, KEY)
    p = jax.nn.softmax(conditionals(batch["frames"], batch["label"]))
    np.testing.assert_allclose(means, p @ np.linspace(0, 1, 5), atol=1e-5)


def excess(counts, p):
    """The standardised sum of squares over the states, whose mean is 1 and spread √(2/K)."""
    num = counts.sum()
    chi = ((counts - num * p) ** 2 / (num * p).clip(1.0)).sum() / len(p)
    return (chi - 1) / np.sqrt(2 / len(p))


@pytest.mark.parametrize("given", [0, 1])
def test_a_forecast_of_drawn_frames_has_the_models_own_distribution(given):
    """From nothing, and after a frame; the same as `sample` has."""
    model, params, extra = built({**PATCHES}, GREY)
    num, spec = 4000, model.spec
    everything = every_sequence(spec)
    p = np.exp(log_p_of(model, params, everything))
    context = np.broadcast_to(everything[-1, :given], (num, given, *spec.shape[1:]))
    forecast = forecast_of(model, params, context, spec.frames - given)
    assert forecast.frames.dtype == spec.dtype
    drawn = np.concatenate([context, forecast.frames], 1)
    if given:
        same = (everything[:, :given] == everything[-1, :given]).all((1, 2, 3, 4))
        p = np.where(same, p, 0) / p[same].sum()
    counts = np.bincount(digits_of(drawn, spec), minlength=len(p))
    assert excess(counts[p > 0], p[p > 0]) < 6
    if not given:
        samples = jitted(model.sample, num=num)(params, extra, KEY)
        assert excess(np.bincount(digits_of(samples, spec), minlength=len(p)), p) < 6


def test_a_forecasts_means_are_those_given_the_frames_before():
    """Of drawn frames as if they were true, for any number of given and predicted frames."""
    model, params, extra, _ = compiled(1)
    frames = random_frames(model.spec)
    for given, horizon in ((0, 5), (3, 2), (4, 1)):
        forecast = model.sequential.forecast(params, extra, KEY, frames[:, :given], horizon)
        whole = batch_of(np.concatenate([frames[:, :given], forecast.frames], 1))
        means = model.sequential.teacher_forced(params, extra, whole, KEY)
        np.testing.assert_allclose(forecast.mean, means[:, given:], atol=1e-5)
    # The first mean is of true frames alone, whatever is fed; longer than training, too.
    fed = model.sequential.forecast(params, extra, KEY, frames[:, :3], 9, fed="mean")
    whole = batch_of(frames)
    means = model.sequential.teacher_forced(params, extra, whole, KEY)
    np.testing.assert_allclose(fed.mean[:, 0], means[:, 3], atol=1e-5)
    again = model.sequential.forecast(
        params, extra, jax.random.key(9), frames[:, :3], 9, fed="mean"
    )
    np.testing.assert_array_equal(fed.mean, again.mean)
    assert fed.mean.shape == (6, 9, *model.spec.shape[1:])


@functools.cache
def loss_and_gradient(**fields):
    """Of a model at given parameters, as a compiled function of the step."""
    model, params, extra = built(fields, LONG)
    batch = batch_of(random_frames(LONG))
    loss = jax.value_and_grad(lambda p, step: model.losses["model"](p, extra, batch, KEY, step)[0])
    return functools.partial(jax.jit(loss), params)


def test_scheduled_sampling_at_rate_0_is_teacher_forcing():
    """Also before it begins; then it is something else, which depends on the example's index."""
    teacher = loss_and_gradient()(0)
    for fields, step in (
        ({"feeding": "scheduled:rate=0.0"}, 500),
        ({"feeding": "scheduled:steps=10", "remat": 2}, 0),
        ({"feeding": "reverse:steps=10,rate=0.0"}, 10),
    ):
        found = loss_and_gradient(**fields)(step)
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), found, teacher)
        if "rate=0.0" not in fields["feeding"] or "reverse" in fields["feeding"]:
            assert abs(loss_and_gradient(**fields)(5)[0] - teacher[0]) > 1e-4


def test_scheduled_sampling_at_rate_1_is_free_running():
    """The loss after the context is that of a forecast fed with its means."""
    fields = {"feeding": "scheduled:steps=1,context=2", "objective": "cross_entropy"}
    model, params, extra = built(fields, LONG)
    frames = random_frames(LONG)
    forecast = forecast_of(model, params, frames[:, :2], 3, fed="mean")
    means = np.concatenate([means_of(model, params, frames)[:, :2], forecast.mean], 1)
    found = jitted(model.losses["model"])(params, extra, batch_of(frames), KEY, 1)[0]
    np.testing.assert_allclose(found, entropy(means, frames / 4), rtol=1e-4)


def entropy(means, grey):
    """The mean Bernoulli cross-entropy, nats."""
    means = np.float64(means)
    return -(grey * np.log(means) + (1 - grey) * np.log1p(-means)).mean()


@pytest.mark.parametrize(
    ("spec", "step", "wanted"),
    [
        ("scheduled:steps=10,context=2", 0, [0, 0, 0, 0]),
        ("scheduled:steps=10,context=2", 5, [0, 0, 0.5, 0.5]),
        ("scheduled:steps=10,context=2,rate=0.5", 20, [0, 0, 0.5, 0.5]),
        ("reverse:steps=10,context=2", 0, [0.5, 0.5, 0, 0]),
        ("reverse:steps=10,context=2", 5, [0.5, 0.5, 0.5, 0.5]),
        ("reverse:steps=10,context=2", 8, [0.2, 0.2, 0.8, 0.8]),
        ("reverse:steps=10,context=2", 10, [0, 0, 1, 1]),
    ],
)
def test_how_often_predictions_are_fed(spec, step, wanted):
    own = feeding.from_spec(spec).own(jnp.int32(step), 4)
    np.testing.assert_allclose(own, wanted, atol=1e-6)
    drawn = feeding.chosen(own, KEY, jnp.arange(4000))
    np.testing.assert_allclose(drawn.mean(1), wanted, atol=0.03)
    part = feeding.chosen(own, KEY, jnp.arange(2000, 4000))  # each example's own draws
    np.testing.assert_array_equal(part, drawn[:, 2000:])


@pytest.mark.parametrize("objective", ["cross_entropy", "mse"])
def test_an_objective_that_is_no_likelihood_reports_none(objective):
    model, params, extra = built({"objective": objective}, LONG)
    assert model.likelihood is model.log_prob is model.sample is model.steps is None
    assert model.sequential.log_probs is None
    frames = random_frames(LONG)
    means = means_of(model, params, frames)
    loss, aux = jitted(model.losses["model"])(params, extra, batch_of(frames), KEY, 0)
    assert not aux.metrics
    if objective == "cross_entropy":
        np.testing.assert_allclose(loss, entropy(means, frames / 4), rtol=1e-4)
    else:  # means are outputs cut to [0, 1], which can only be nearer
        assert 0 < np.square(means - frames / 4).mean() <= loss
    forecast = forecast_of(model, params, frames[:, :2], 2, fed="mean")
    np.testing.assert_array_equal(forecast.frames, np.round(4 * np.float64(forecast.mean)))
    with pytest.raises(UserError, match="no frames to draw"):
        model.sequential.forecast(params, extra, KEY, frames[:, :2], 2)


def test_the_last_frame_is_predicted_once_more_at_first():
    """With outputs of the decoder at 0, each readout's mean is nearest to the last frame."""
    frames = random_frames(LONG)
    for fields in ({"readout": kind} for kind in ("categorical", "logistic_mixture", "gaussian")):
        model = models.build("video_rnn", fields, LONG)
        params, _ = jax.eval_shape(model.init, jax.random.key(0))
        rest = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), params["model"])
        last = repeating(fields["readout"], rest["last"].shape[1])
        params = {"model": {**rest, "last": np.float32(last)}}
        means = means_of(model, params, frames)
        order = np.corrcoef(np.ravel(means[:, 1:]), np.ravel(frames[:, :-1]))[0, 1]
        assert order > 0.95, fields


def test_sequences_come_back_from_as_many_bits_as_the_likelihood_says():
    model, params, _ = built({"readout": "logistic_mixture"}, LONG._replace(levels=64))
    frames = random_frames(model.spec, 40)
    nats = -log_p_of(model, params, frames).sum()
    coder = codec.coder(model, params, {}, 16)
    streams = coder.encode(frames, None)
    got, _ = coder.decode(streams, len(frames))
    np.testing.assert_array_equal(got, frames)
    bits, stated = 8 * sum(map(len, streams)), nats / np.log(2)
    assert stated - 8 * 4 <= bits <= 1.01 * stated + 8 * 64


def test_missing_frames_and_pixels_are_completed():
    """Weighted draws approach p(first frame | rest), with all but that frame known."""
    model, params, extra = built({"readout": "bernoulli", **PATCHES}, GREY._replace(levels=2))
    everything = every_sequence(model.spec)
    p = np.exp(log_p_of(model, params, everything))
    given, num = everything[5], 2000
    known = np.ones((num, 3, 1, 2), bool)
    known[:, 0] = False
    frames = np.broadcast_to(given, (num, *model.spec.shape))
    complete = jax.jit(functools.partial(model.complete, candidates=16))
    completed = complete(params, extra, KEY, frames, known).image
    np.testing.assert_array_equal(completed[:, 1:], frames[:, 1:])
    same = (everything[:, 1:] == given[1:]).all((1, 2, 3, 4))
    found = np.bincount(digits_of(completed, model.spec), minlength=len(p))[same] / num
    assert 0.5 * np.abs(found - p[same] / p[same].sum()).sum() < 0.06


@pytest.mark.parametrize(
    ("fields", "spec", "message"),
    [
        (
            {},
            ImageSpec(4, 4),
            "is a model of sequences, but the data are still images; set .*moving",
        ),
        (
            {"encoder": "patches:size=3"},
            LONG,
            "encoder.size must be a divisor of .* 4 and 6, got 3",
        ),
        ({"encoder": "patch"}, LONG, "encoder='patch' is unknown; did you mean 'patches'"),
        ({"encoder": "convolutions:stages=3"}, LONG, r"encoder.stages must be in \[0, 2\], got 3"),
        ({"encoder": "convolutions:kernel=3"}, LONG, "encoder.kernel must be even and ≥ 2, got 3"),
        ({"encoder": "patches:stages=3"}, LONG, "has no option 'stages=3'"),
        ({"feeding": "schedule"}, LONG, "feeding='schedule' is unknown; did you mean 'scheduled'"),
        ({"feeding": "scheduled:rate=2.0"}, LONG, r"feeding.rate must be in \[0, 1\], got 2.0"),
        ({"feeding": "reverse:steps=0"}, LONG, "feeding.steps must be ≥ 1, got 0"),
        ({"objective": "mae"}, LONG, "objective must be one of cross_entropy, likelihood, mse"),
        ({"objective": "mse", "readout": "gaussian"}, LONG, "no effect with objective='mse'"),
        (
            {"maps": True, "input_features": 9},
            LONG,
            "input_features=9 has no effect with maps=True",
        ),
        ({"kernel": 5}, LONG, "kernel=5 has no effect with maps=False"),
        (
            {"cell": "conv_lstm"},
            LONG,
            "'conv_lstm' runs over maps of features, and here each state",
        ),
        (MAPS | {"kernel": 4}, LONG, "kernel.*must be odd.*got 4"),
        (MAPS | {"cell": "layer_norm_lstm"}, LONG, "cannot be convolved over maps; allowed: "),
        (MAPS | {"cell": "st_lstm:decoupling=True"}, LONG, "adds decoupling to the loss"),
        ({"readout": "bernoulli"}, LONG, "5 levels"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_in_one_line(fields, spec, message):
    with pytest.raises(UserError, match=message) as error:
        models.build("video_rnn", fields, spec)
    assert "\n" not in str(error.value)
