"""Coding is lossless and takes as many bits as the likelihood predicts."""

import warnings

import constriction
import jax
import jax.numpy as jnp
import joined_streams
import numpy as np
import pytest

from rnngen_jax import models
from rnngen_jax.errors import RunError, UserError
from rnngen_jax.evaluation import codec, coding_steps, likelihood
from rnngen_jax.models.autoregressive import Steps
from rnngen_jax.shapes import ImageSpec

SMALL = {"features": 6, "input_features": 6, "learned_carry": True}
CASES = [
    ("pixel_rnn", {"order": "serpentine", "above": 2}, ImageSpec(4, 3, levels=5)),
    ("pixel_rnn", {"order": "column", "layers": 2}, ImageSpec(3, 4, levels=5)),
    ("pixel_rnn", {"readout": "logistic_mixture", "pixels": "scalar"}, ImageSpec(2, 3, 3)),
    ("pixel_rnn", {"readout_hidden": 7, "cell": "lstm"}, ImageSpec(2, 3, 3, levels=4)),
    ("pixel_rnn", {"readout": "bernoulli"}, ImageSpec(4, 3, levels=2)),
    ("pixel_rnn", {"class_conditional": True}, ImageSpec(3, 3, levels=4, classes=3)),
    ("pixel_rnn", {"class_conditional": True}, ImageSpec(2, 2, levels=4, classes=1)),
    ("row_rnn", {}, ImageSpec(4, 3, 3, levels=4)),
    ("row_rnn", {"readout": "logistic_mixture", "pixels": "scalar"}, ImageSpec(4, 3)),
    ("row_rnn", {"readout": "bernoulli", "class_conditional": True}, ImageSpec(3, 3, 1, 2, 300)),
    ("row_rnn", {"within": "autoregressive", "cell": "lstm"}, ImageSpec(3, 2, 3, levels=4)),
    ("row_rnn", {"within": "autoregressive", "layers": 2}, ImageSpec(3, 4, levels=256)),
    (
        "pixel_rnn",
        {"readout": "logistic_mixture", "pixels": "scalar"},
        ImageSpec(2, 3, levels=1000),
    ),
    ("row_rnn", {"readout": "gaussian", "pixels": "scalar"}, ImageSpec(3, 2, levels=100)),
]


def case_name(case):
    name, fields, spec = case
    return "-".join([name, *(f"{value}" for value in fields.values()), f"{spec.channels}"])


def built(case, scale=1.0, seed=0, small=SMALL):
    """A model with random parameters; a greater `scale` gives a sharper likelihood."""
    name, fields, spec = case
    model = models.build(name, small | fields, spec)
    shapes, _ = jax.eval_shape(model.init, jax.random.key(0))
    rng = np.random.default_rng(seed)

    def draw(leaf):
        spread = 0.4 if leaf.ndim < 2 else 1.5 / np.sqrt(leaf.shape[-2])
        return jnp.asarray(scale * spread * rng.standard_normal(leaf.shape, np.float32))

    return model, jax.tree.map(draw, shapes)


def random_images(spec, num, seed=1):
    return np.random.default_rng(seed).integers(0, spec.levels, (num, *spec.shape), spec.dtype)


def labels_for(model, num):
    if not codec.labelled(model):
        return None
    return np.random.default_rng(2).integers(0, model.spec.classes, num).astype(np.int32)


def length(streams):
    """Bytes of all streams."""
    return sum(map(len, streams))


def bits_of(model, params, images, labels):
    """Bits of all images together by the likelihood."""
    score = likelihood.scorer(model, lambda batch, key: batch)
    batch = {"image": images, "label": labels, "index": np.arange(len(images))}
    nats = score(params, {}, batch, jax.random.key(0))
    return float(np.asarray(nats, np.float64).sum()) / np.log(2)


@pytest.mark.parametrize(
    "case",
    [pytest.param(CASES[0], marks=pytest.mark.optimised), *CASES[1:]],
    ids=case_name,
)
def test_images_come_back_to_the_last_bit(case):
    """With two coders compiled separately, as in two processes."""
    model, params = built(case)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as for arrays that cannot be donated
        encoder, decoder = (codec.coder(model, params, {}, 4) for _ in range(2))
    for num in (1, 4, 11):  # less than a batch, a batch, and more
        images, labels = random_images(model.spec, num), labels_for(model, num)
        stream = encoder.encode(images, labels)
        got, got_labels = decoder.decode(stream, num)
        assert got.dtype == model.spec.dtype
        np.testing.assert_array_equal(got, images)
        if labels is None:
            assert got_labels is None
        else:
            np.testing.assert_array_equal(got_labels, labels)
        # Images that only fill up a batch take no bits.
        assert encoder.encode(images, labels) == stream


@pytest.mark.parametrize(
    "case",
    [pytest.param(CASES[5], marks=pytest.mark.optimised), CASES[3], CASES[8], CASES[11]],
    ids=case_name,
)
def test_devices_change_no_byte_and_one_reads_what_several_wrote(case):
    """A batch on each of up to 3 devices; the last group has a batch that is not full."""
    model, params = built(case)
    devices = jax.devices()
    one, two, three = (codec.coder(model, params, {}, 2, devices[:count]) for count in (1, 2, 3))
    assert one.arithmetic == two.arithmetic == three.arithmetic
    for num in (1, 6, 9):
        images, labels = random_images(model.spec, num), labels_for(model, num)
        streams = one.encode(images, labels)
        assert len(streams) == len(codec.digests(images, labels, 2)) == -(-num // 2)
        assert two.encode(images, labels) == three.encode(images, labels) == streams
        for coder in (one, two, three):
            got, got_labels = coder.decode(streams, num, codec.digests(images, labels, 2))
            np.testing.assert_array_equal(got, images)
            assert labels is None or np.array_equal(got_labels, labels)
        with pytest.raises(codec.DecodingError):
            three.decode([*streams[:-1], bytes(4)], num, codec.digests(images, labels, 2))


@pytest.mark.parametrize("case", [CASES[0], CASES[5], CASES[9], CASES[2]], ids=case_name)
def test_one_stream_for_all_batches_is_still_read(case):
    """As files of earlier versions have; of a single batch it is what is written today.

    Also that of a mixture, whose values are coded coarse to fine today.
    """
    model, params = built(case)
    coder = codec.coder(model, params, {}, 4, coarse=False)
    for num in (3, 4, 11):
        images, labels = random_images(model.spec, num), labels_for(model, num)
        stream = joined_streams.encode(model, params, {}, 4, images, labels)
        got, got_labels = coder.decode([stream], num, codec.digests(images, labels, 4))
        np.testing.assert_array_equal(got, images)
        assert labels is None or np.array_equal(got_labels, labels)
        streams = coder.encode(images, labels)
        if num <= 4:
            assert streams == (stream,)
        # A batch's own stream ends in a word or two of which a common one saves the most.
        assert 0 <= length(streams) - len(stream) <= 8 * (len(streams) - 1)


def test_no_more_devices_than_batches_and_one_for_one_stream():
    every = jax.local_devices()
    assert codec.devices_for(8, 4) == every[:2]
    assert codec.devices_for(9, 4, streams=3) == every[:3]
    assert codec.devices_for(10**6, 4) == every
    assert codec.devices_for(10**6, 4, streams=1) == every[:1]


@pytest.mark.parametrize("name", models.names())
def test_every_model_with_steps_is_one_of_them(name):
    """Every model at a tiny size."""
    small = {**SMALL, "layers": 1, "first_kernel": 3, "readout_hidden": 5}
    small |= {"read_size": 2, "write_size": 2}
    fields = {key: value for key, value in small.items() if hasattr(models.config_class(name), key)}
    spec = ImageSpec(3, 2, levels=4, classes=2)
    if name == "video_rnn":
        spec, fields = spec._replace(frames=2), fields | {"encoder": "patches:size=1"}
    model, params = built((name, fields, spec), small={})
    if model.steps is None:
        pytest.skip(f"{name} has no steps")
    images = random_images(model.spec, 5)
    coder = codec.coder(model, params, {}, 4)
    got, _ = coder.decode(coder.encode(images, None), 5)
    np.testing.assert_array_equal(got, images)


@pytest.mark.parametrize("scale", [1.0, 6.0], ids=["flat", "sharp"])
@pytest.mark.parametrize(
    "case", [CASES[0], CASES[3], CASES[8], CASES[11], CASES[12]], ids=case_name
)
def test_the_stream_is_as_long_as_the_likelihood_says(case, scale):
    """For the model's own samples, against the likelihood of all values at once."""
    model, params = built(case, scale)
    num = 200
    images = np.asarray(
        jax.jit(model.sample, static_argnames="num")(params, {}, jax.random.key(0), num=num)
    )
    bits = bits_of(model, params, images, np.zeros(num, np.int32))
    streams = codec.coder(model, params, {}, 64).encode(images, None)
    assert len(streams) == 4
    assert bits - 4 * 8 <= 8 * length(streams) <= 1.01 * bits + 8 * 64
    if scale > 1:
        assert bits < 0.6 * images.size * np.log2(model.spec.levels)


def test_labels_take_as_many_bits_as_there_are_classes():
    model, params = built(("pixel_rnn", {"class_conditional": True}, ImageSpec(1, 1, 1, 2, 10)))
    images, labels = random_images(model.spec, 500), labels_for(model, 500)
    coder = codec.coder(model, params, {}, 64)
    streams = coder.encode(images, labels)
    bits = bits_of(model, params, images, labels) + 500 * np.log2(10)
    assert len(streams) == 8
    assert bits - 8 * 8 <= 8 * length(streams) <= 1.001 * bits + 8 * 64
    assert coder.encode(images, np.roll(labels, 1)) != streams


@pytest.mark.parametrize("case", [CASES[0], CASES[2], CASES[12], CASES[13]], ids=case_name)
def test_values_that_the_model_thinks_impossible_can_be_coded(case):
    model, params = built(case, scale=1000.0)
    images = random_images(model.spec, 6)
    log_p = model.log_probs(model.conditionals(params, {}, images, None))
    assert (np.exp(np.asarray(log_p)) == 0).any()
    coder = codec.coder(model, params, {}, 8)
    streams = coder.encode(images, None)
    np.testing.assert_array_equal(coder.decode(streams, 6)[0], images)
    assert length(streams) * 8 <= images.size * 24 + 64  # the price of what cannot be


def test_probabilities_that_are_no_numbers_are_refused():
    model, params = built(CASES[0])
    params = jax.tree.map(lambda x: x * jnp.nan, params)
    coder = codec.coder(model, params, {}, 2)
    with pytest.raises(RunError, match="not finite"):
        coder.encode(random_images(model.spec, 2), None)
    with pytest.raises(RunError, match="not finite"):
        coder.decode([bytes(40)], 2)


def test_any_stream_decodes_to_images_or_is_refused():
    model, params = built(CASES[5])
    coder = codec.coder(model, params, {}, 4)
    rng = np.random.default_rng(0)
    for words in [0, 0, *range(1, 40)]:
        try:
            images, labels = coder.decode([rng.bytes(4 * words)], 3)
        except codec.DecodingError:
            continue
        assert images.max() < model.spec.levels
        assert 0 <= labels.min() <= labels.max() < model.spec.classes
    with pytest.raises(codec.DecodingError, match="labels take more"):
        coder.decode([bytes(40)], 10**12)  # more memory than there is


def no_more_than(most):
    """A `track` that fails if a decoder goes on to more batches."""

    def track(batches):
        for number, batch in enumerate(batches):
            assert number < most, f"more than {most} batches"
            yield batch

    return track


@pytest.mark.parametrize("case", [CASES[0], CASES[5], CASES[7]], ids=case_name)
def test_a_stream_that_claims_more_than_it_holds_is_refused_where_it_ends(case, monkeypatch):
    """Not after a million images decoded from the zeros past the stream's end."""
    model, params = built(case, scale=0.1)  # all values are about as likely
    coder = codec.coder(model, params, {}, 8, track=no_more_than(2))
    (whole,) = coder.encode(random_images(model.spec, 8), labels_for(model, 8))
    tables, counted = codec._table, []
    monkeypatch.setattr(codec, "_table", lambda *a: counted.append(1) or tables(*a))
    bits_of_a_step = 8 * model.steps.width * np.log2(model.spec.levels)
    for stream in (b"", bytes(4), bytes(8), whole[:8], whole):
        counted.clear()
        with pytest.raises(codec.DecodingError, match=r"ends before|labels take|no value"):
            coder.decode([stream], 10**6)
        most = 8 * len(stream) + codec.MOST_BITS + 32
        assert len(counted) <= 1 + 1.2 * most / bits_of_a_step


def toy(log_p, width=2, lines=2):
    """A model whose lines have tables of their own, the lower line first."""
    steps = Steps(
        starts=np.arange(lines, dtype=np.int32)[::-1, None, None] * width,
        width=width,
        first=lambda params, label: (label,),
        raw=lambda params, state, t, turn, seen: (
            state,
            jnp.stack([params[0][t]] * width)[None].repeat(state[0].shape[0], 0),
        ),
    )
    spec = ImageSpec(lines, width, levels=len(log_p[0]))
    model = models.base.Model("toy", spec, False, None, {}, steps=steps, log_probs=lambda raw: raw)
    return model, (jnp.asarray(log_p),)


def parted(levels):
    """A toy of one pixel, whose levels have the probabilities that are returned beside it.

    They are multiples of 2^-23, so that sums over intervals are exact in any order.
    """
    p = np.random.default_rng(3).integers(1, 2**13, levels) * 2.0**-23
    padded = jnp.asarray(np.concatenate([p, np.zeros(levels)]), jnp.float32)

    def masses(raw, first, width, num):
        places = first[..., None] + jnp.arange(width * num)
        return padded[places].reshape(*first.shape, num, width).sum(-1)

    steps = Steps(
        starts=np.zeros((1, 1, 1), np.int32),
        width=1,
        first=lambda params, label: label,
        raw=lambda params, state, t, turn, seen: (state, jnp.zeros((state.size, 1, 1))),
    )
    functions = {"log_probs": lambda raw: jnp.log(padded[:levels]) + raw, "masses": masses}
    spec = ImageSpec(1, 1, levels=levels)
    return models.base.Model("toy", spec, False, None, {}, steps=steps, **functions), p


def test_values_coded_coarse_to_fine_are_decoded_by_hand():
    """The documented format: all intervals of a step, then all levels within them."""
    model, p = parted(200)
    images = random_images(model.spec, 40)
    (stream,) = codec.coder(model, (), {}, 64).encode(images, None)
    family = constriction.stream.model.Categorical(perfect=False)
    decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(stream, "<u4").astype(np.uint32))
    table = np.pad(p, (0, 8)).reshape(13, 16)
    coarse = (table.sum(1) + 16 * 2.0**-24).astype(np.float32)
    part = decoder.decode(family, np.tile(coarse, (40, 1)))
    np.testing.assert_array_equal(part, images.reshape(-1) // 16)
    within = decoder.decode(family, (table[part] + 2.0**-24).astype(np.float32))
    np.testing.assert_array_equal(within, images.reshape(-1) % 16)


def test_a_level_above_the_highest_in_the_last_interval_is_refused():
    """200 levels are 13 intervals of 16, of which the last has 8 levels only."""
    model, p = parted(200)
    coder = codec.coder(model, (), {}, 1)
    table = np.pad(p, (0, 8)).reshape(13, 16)
    coarse = (table.sum(1) + 16 * 2.0**-24).astype(np.float32)
    family = constriction.stream.model.Categorical(perfect=False)
    for level in (3, 192, 199, 200, 207):
        encoder = constriction.stream.queue.RangeEncoder()
        encoder.encode(np.array([level // 16], np.int32), family, coarse[None])
        within = (table[[level // 16]] + 2.0**-24).astype(np.float32)
        encoder.encode(np.array([level % 16], np.int32), family, within)
        stream = encoder.get_compressed().astype("<u4").tobytes()
        if level < 200:
            assert coder.decode([stream], 1)[0].item() == level
            continue
        with pytest.raises(codec.DecodingError, match="stands for no value"):
            coder.decode([stream], 1)


def test_few_levels_are_coded_at_once():
    for levels, width in ((2, 0), (32, 0), (33, 8), (64, 8), (65, 16), (256, 16), (1024, 32)):
        model, _ = parted(levels)
        (stage,) = coding_steps.stages_of(model)
        assert coding_steps.interval(stage) == width
        assert codec.coarse(model) == (width > 0)
        assert coding_steps.interval(stage._replace(masses=None)) == 0


def test_images_of_next_to_no_bits_come_back():
    """Black images and a model that is almost certain of black: a word holds ten thousand."""
    model, params = toy(np.log(np.array([[1 - 1e-9, 1e-9]] * 2, np.float32)))
    coder = codec.coder(model, params, {}, 1024)
    for images in (np.zeros((10_000, 2, 2, 1), np.uint8), np.ones((3, 2, 2, 1), np.uint8)):
        streams = coder.encode(images, None)
        assert set(map(len, streams)) == {4 if images.max() == 0 else 40}
        got, _ = coder.decode(streams, len(images), codec.digests(images, None, 1024))
        np.testing.assert_array_equal(got, images)


@pytest.mark.parametrize("streams", [1, 1000])
def test_a_wrong_batch_is_found_out_at_its_end(streams):
    """Where the stream's length cannot: any values take almost no bits under a certain model."""
    model, params = toy(np.log(np.array([[1 - 1e-9, 1e-9]] * 2, np.float32)))
    coder = codec.coder(model, params, {}, 4, track=no_more_than(3))
    black = codec.digest(np.zeros((4, 2, 2, 1), np.uint8), None)
    with pytest.raises(codec.DecodingError, match="other values come out than went in"):
        coder.decode([bytes(4)] * streams, 4000, [black, black, b"notblack", *[black] * 997])


@pytest.mark.parametrize("case", [CASES[0], CASES[9]], ids=case_name)
def test_the_arithmetics_digest_is_of_the_probabilities_alone(case):
    """Equal for all coders of a model; different if floating point differs in the last bits."""
    model, params = built(case)
    digest = codec.coder(model, params, {}, 4).arithmetic
    assert len(digest) == 4
    assert codec.coder(model, params, {}, 4).arithmetic == digest

    def other(raw):
        return jnp.nextafter(model.log_probs(raw), 0.0)

    assert codec.coder(model._replace(log_probs=other), params, {}, 4).arithmetic != digest


@pytest.mark.parametrize("wanted", [1, 16])
def test_both_parts_of_a_value_are_in_the_arithmetics_digest(wanted):
    model, _ = parted(200)
    digest = codec.coder(model, (), {}, 4).arithmetic

    def other(raw, first, width, num):
        found = model.masses(raw, first, width, num)
        return jnp.nextafter(found, 0.0) if width == wanted else found

    assert codec.coder(model, (), {}, 4).arithmetic == digest
    assert codec.coder(model._replace(masses=other), (), {}, 4).arithmetic != digest


def test_each_compiled_program_has_its_part_in_the_arithmetics_digest():
    """Red, green and blue are three programs, and each step is given the previous one."""
    model, params = built(CASES[3])
    digest = codec.coder(model, params, {}, 4).arithmetic
    for wanted in range(3):

        def raw(params, state, t, turn, seen, wanted=wanted):
            state, out = model.steps.raw(params, state, t, turn, seen)
            return state, out * (1 + 1e-5 * (turn == wanted))

        other = model._replace(steps=model.steps._replace(raw=raw))
        assert codec.coder(other, params, {}, 4).arithmetic != digest


def test_a_stream_for_each_batch_in_the_order_of_the_steps():
    """The documented format, decoded by hand with a toy whose tables are known."""
    log_p = np.log(np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], np.float32))
    model, (_,) = toy(log_p)
    spec = model.spec
    images = random_images(spec, 3)
    streams = codec.coder(model, (jnp.asarray(log_p),), {}, 2).encode(images, None)
    family = constriction.stream.model.Categorical(perfect=False)
    for batch, stream in zip((images[:2], images[2:]), streams, strict=True):
        words = np.frombuffer(stream, "<u4").astype(np.uint32)
        decoder = constriction.stream.queue.RangeDecoder(words)
        for line, row in enumerate((1, 0)):
            # NumPy's exp differs in the last bit, so that decoding would fail.
            table = np.asarray(jnp.exp(log_p))[[line] * batch[:, row].size]
            drawn = decoder.decode(family, table)
            np.testing.assert_array_equal(drawn, batch[:, row].reshape(-1))


def test_batches_are_powers_of_two_within_the_memory():
    model, params = built(CASES[0])
    sizes = [codec.batch_size(model, params, {}, num) for num in range(1, 3000, 7)]
    assert {size.bit_count() for size in sizes} == {1}
    assert codec.batch_size(model, params, {}, 1) == 1
    assert max(sizes) == codec.LARGEST_BATCH
    for num, size in zip(range(1, 3000, 7), sizes, strict=True):
        assert size <= codec.largest_batch(model, params, {}, num) < 2 * num

    def first(params, label):
        return jnp.zeros((label.shape[0], 2**20))  # 4 MiB an image

    heavy = model._replace(steps=model.steps._replace(first=first))
    assert codec.largest_batch(heavy, params, {}, 10**6) == 16
    heavier = model._replace(
        steps=model.steps._replace(first=lambda p, label: first(p, label.repeat(1000)))
    )
    assert codec.batch_size(heavier, params, {}, 10**6) == 1


def test_a_model_without_steps_is_refused():
    model, params = built(CASES[0])
    with pytest.raises(UserError, match="pixel_rnn cannot compress"):
        codec.coder(model._replace(steps=None), params, {}, 1)
    with pytest.raises(UserError, match="pixel_rnn cannot compress"):
        codec.batch_size(model._replace(steps=None), params, {}, 1)
