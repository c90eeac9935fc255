"""N seeds in one program equal N runs of one seed, on any devices, and resume like them."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import training_toys as toys

from rnngen_jax import keys
from rnngen_jax.data.feed import fetch, make_feed
from rnngen_jax.errors import RunError, UserError
from rnngen_jax.training import parallel as parallels
from rnngen_jax.training import sinks
from rnngen_jax.training.checkpoints import open_checkpoints
from rnngen_jax.training.config import OptimizerConfig
from rnngen_jax.training.optimizers import make_optimizer
from rnngen_jax.training.parallel import make_parallel
from rnngen_jax.training.preemption import Interruption
from rnngen_jax.training.progress import make_progress
from rnngen_jax.training.seeds import create_each, gather, summarise
from rnngen_jax.training.state import create
from rnngen_jax.training.step import train_step

SEED, STEPS, BATCH = 3, 20, 8
SGD = OptimizerConfig(name="sgd", learning_rate=0.1, schedule="cosine", clip_norm=0.05)
ADAM = OptimizerConfig(name="adam", learning_rate=0.01)


def make(model, optimizer, seed=SEED, seeds=1, devices=1):
    optimizers = {player: make_optimizer(optimizer.resolved(STEPS)) for player in model.losses}
    parallel = make_parallel(
        "jit",
        train_step(model, optimizers, 0.9, toys.jitter),
        fetch,
        seed,
        BATCH,
        jax.devices()[:devices],
        seeds,
    )
    make_one = functools.partial(create, model, optimizers, ema=True)
    return parallel, jax.jit(lambda: create_each(make_one, seed, seeds))()


def train(model, optimizer, seed=SEED, seeds=1, devices=1, placement="device"):
    """The metrics of all steps, and the last state, as NumPy arrays."""
    parallel, state = make(model, optimizer, seed, seeds, devices)
    feed = make_feed(toys.split(), BATCH, seed, placement, seeds)
    state, resident = parallel.place(state), parallel.place_resident(feed.resident)
    found = []
    for chunk in feed.chunks([(start, start + 5) for start in range(0, STEPS, 5)]):
        placed = parallel.place_chunk(chunk)
        state, metrics = parallel.compiled(state, resident, placed)(state, resident, placed)
        found.append(parallel.host(metrics))
    joined = {name: np.concatenate([m[name] for m in found]) for name in found[0]}
    return joined, parallel.host(state)


@functools.cache
def single(name, optimizer, seed):
    return train(getattr(toys, name)(), optimizer, seed)


def close(ours, other):
    np.testing.assert_allclose(ours, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "optimizer", "seeds", "devices"),
    [
        ("autoencoder", SGD, 2, 1),
        ("autoencoder", ADAM, 8, 8),  # a seed per device
        ("autoencoder", ADAM, 4, 8),  # two devices per seed
        ("autoencoder", ADAM, 3, 8),  # all devices share all seeds
        ("adversaries", SGD, 3, 1),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_seeds_are_the_runs_of_their_seeds(name, optimizer, seeds, devices):
    metrics, state = train(getattr(toys, name)(), optimizer, SEED, seeds, devices)
    for r in range(seeds):
        of_one, after = single(name, optimizer, SEED + r)
        assert metrics.keys() == of_one.keys()
        for metric, values in of_one.items():
            assert metrics[metric].shape == (STEPS, seeds)
            close(metrics[metric][:, r], values)
        jax.tree.map(close, jax.tree.map(lambda x: x[r], state), after)  # noqa: B023
    first = metrics[f"loss/{'model' if name == 'autoencoder' else 'generator'}"]
    assert np.ptp(first[-1]) > 1e-4  # the seeds differ
    assert (np.ptp(first, axis=0) > 1e-4).all()  # and all of them move


def test_streaming_gives_the_same_as_resident():
    model = toys.autoencoder()
    streamed, _ = train(model, ADAM, seeds=4, devices=8, placement="stream")
    resident, _ = train(model, ADAM, seeds=4, devices=8)
    np.testing.assert_allclose(streamed["loss/model"], resident["loss/model"], rtol=1e-6)


@pytest.mark.parametrize(
    ("seeds", "shape"),
    [(1, (1, 8)), (8, (8, 1)), (16, (8, 1)), (4, (4, 2)), (12, (4, 2)), (3, (1, 8))],
)
def test_seeds_are_spread_before_the_batch(seeds, shape):
    mesh = parallels.make_mesh(jax.devices(), seeds)
    assert tuple(mesh.shape.values()) == shape
    assert mesh.devices.reshape(-1).tolist() == jax.devices()


def test_every_process_holds_all_seeds_and_a_range_of_the_batch(monkeypatch):
    monkeypatch.setattr(parallels, "Mesh", lambda grid, *args, **kwargs: grid)
    devices = [types.SimpleNamespace(process_index=p, id=i) for p in (0, 1) for i in range(4)]
    for seeds, rows in ((8, 4), (2, 2), (3, 1)):
        grid = parallels.make_mesh(devices, seeds)
        owners = [[device.process_index for device in row] for row in grid]
        assert owners == [[0] * (4 // rows) + [1] * (4 // rows)] * rows


def compiled_text(seeds):
    """The program of one call on eight devices."""
    parallel, state = make(toys.autoencoder(), ADAM, seeds=seeds, devices=8)
    feed = make_feed(toys.split(), BATCH, SEED, "device", seeds)
    state, resident = parallel.place(state), parallel.place_resident(feed.resident)
    chunk = parallel.place_chunk(next(iter(feed.chunks([(0, 5)]))))
    return parallel.compiled(state, resident, chunk).as_text()


def test_seeds_on_devices_of_their_own_never_talk():
    collectives = ("all-reduce", "all-gather", "all-to-all", "collective-permute")
    assert not any(word in compiled_text(8) for word in collectives)
    assert "all-reduce" in compiled_text(4)  # the two devices of a seed do


@pytest.mark.parametrize("seeds", [8, 4, 3])
def test_each_seed_can_be_had_on_one_device(seeds):
    parallel, state = make(toys.autoencoder(), ADAM, seeds=seeds, devices=8)
    placed = parallel.place(state)
    jax.tree.map(np.testing.assert_array_equal, parallel.host(placed), state)
    for r in range(seeds):
        one = parallel.local(placed, r)
        jax.tree.map(np.testing.assert_array_equal, one, jax.tree.map(lambda x: x[r], state))  # noqa: B023
        assert {x.device for x in jax.tree.leaves(one)} == {jax.devices()[0]}


def test_the_placed_state_is_donated():
    parallel, state = make(toys.autoencoder(), ADAM, seeds=4, devices=8)
    feed = make_feed(toys.split(), BATCH, SEED, "device", 4)
    placed, resident = parallel.place(state), parallel.place_resident(feed.resident)
    chunk = parallel.place_chunk(next(iter(feed.chunks([(0, 5)]))))
    parallel.compiled(placed, resident, chunk)(placed, resident, chunk)
    assert placed.params["model"]["encoder"]["kernel"].is_deleted()
    assert not any(x.is_deleted() for x in jax.tree.leaves(state))


def test_a_batch_is_divided_over_the_devices_of_a_seed():
    def make_it(batch_size):
        make_parallel("jit", None, fetch, 0, batch_size, jax.devices(), seeds=4)

    make_it(6)
    with pytest.raises(UserError, match=r"multiple of 2 \(2 devices of each seed\), got 7"):
        make_it(7)


def run(workdir, **changes):
    settings = {"seeds": 3, "seed": SEED, "ema_decay": 0.9, "optimizer": ADAM, **changes}
    return toys.run(workdir, **settings)


def lines(workdir, split="train"):
    found = sinks.read(workdir / "metrics.jsonl")
    return [line for line in found if line["split"] == split]


def content(workdir):
    """Digests of all arrays of the last state, and all metrics but the speed."""
    checkpoints = open_checkpoints(workdir / "checkpoints")
    found = checkpoints.restore_evaluated("latest", toys.autoencoder(), toys.IDENTITY, 3)
    state = {name: found.meta[name] for name in ("arrays", "best", "stale", "count", "sums")}
    metrics = sinks.read(workdir / "metrics.jsonl")
    return state, [{k: v for k, v in m.items() if k != "images_per_second"} for m in metrics]


def test_the_lines_have_mean_standard_error_and_each_seed(tmp_path):
    run(tmp_path / "all", validate_every=20, validate=toys.validator())
    singles = []
    for r in range(3):
        run(
            tmp_path / str(r),
            seeds=1,
            seed=SEED + r,
            validate_every=20,
            validate=toys.validator(),
        )
        singles.append(lines(tmp_path / str(r)) + lines(tmp_path / str(r), "validation"))
    ours = lines(tmp_path / "all") + lines(tmp_path / "all", "validation")
    assert len(ours) == 5
    for line, *others in zip(ours, *singles, strict=True):
        assert line.pop("images_per_second", 1.0) > 0
        names = others[0].keys() - {"step", "split", "images_per_second"}
        parts = ["", "/standard_error", *(f"/seed_{SEED + r}" for r in range(3))]
        assert line.keys() == {"step", "split"} | {name + part for name in names for part in parts}
        for name in names:
            values = np.array([other[name] for other in others])
            close([line[f"{name}/seed_{SEED + r}"] for r in range(3)], values)
            close(line[name], values.mean())
            close(line[f"{name}/standard_error"], values.std(ddof=1) / np.sqrt(3))


def test_the_images_of_all_seeds_count(tmp_path, monkeypatch):
    counted = []
    monkeypatch.setattr(
        "rnngen_jax.training.standing.Clock.count", lambda self, images: counted.append(images)
    )
    run(tmp_path)
    assert counted == [5 * 8 * 3] * 4


def test_the_mean_decides_which_is_best_and_when_to_stop(tmp_path):
    scores = [5.0, 1.0, 3.0, 2.0, 3.0, 2.5, 0.0, 9.0, 1.0, 5.0, 5.0, 5.0]
    outcome = run(
        tmp_path, validate_every=5, patience=2, validate=toys.validator(scores), steps=100
    )
    assert outcome == (20, "stopped_early", 10, 2.5)
    assert [line["bits_per_dim"] for line in lines(tmp_path, "validation")][:2] == [3.0, 2.5]


def test_grids_are_those_of_the_first_seed(tmp_path):
    seen = []
    run(tmp_path, sample_every=20, draw=lambda params, extra, step: seen.append((params, extra)))
    found = open_checkpoints(tmp_path / "checkpoints").restore_evaluated(
        "latest", toys.autoencoder(), toys.IDENTITY, 3
    )
    want = jax.tree.map(lambda x: x[0], (found.params, found.extra))
    jax.tree.map(np.testing.assert_array_equal, seen[0], want)


@pytest.mark.parametrize("devices", [1, 8])
def test_resuming_changes_no_bit(tmp_path, devices):
    on = {"validate_every": 5, "log_every": 10, "devices": jax.devices()[:devices]}
    asked = iter([None, None, "SIGTERM"])
    stopping = Interruption(lambda: next(asked))
    assert (
        run(tmp_path / "parts", validate=toys.validator(), interruption=stopping, **on).step == 15
    )
    assert run(tmp_path / "parts", validate=toys.validator(), **on).step == 20
    run(tmp_path / "whole", validate=toys.validator(), **on)
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_saved_on_eight_devices_resumed_on_one(tmp_path):
    run(tmp_path / "parts", steps=10, devices=jax.devices())
    run(tmp_path / "parts")
    run(tmp_path / "whole")
    for ours, other in zip(lines(tmp_path / "parts"), lines(tmp_path / "whole"), strict=True):
        close(ours[f"loss/model/seed_{SEED + 2}"], other[f"loss/model/seed_{SEED + 2}"])


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (3, 2)])
def test_another_number_of_seeds_is_refused(tmp_path, before, after):
    run(tmp_path, seeds=before, steps=5)
    with pytest.raises(UserError, match=r"checkpoints/5 must be .*, got ") as error:
        run(tmp_path, seeds=after)
    assert "\n" not in str(error.value)


def failing(what):
    """A model of which only seed 2 has a number that is not finite, if a metric at step 13."""
    base = toys.autoencoder()
    its_key = keys.named(jax.random.key(SEED + 2), "init")

    def init(key):
        params, extra = base.init(key)
        bad = jnp.all(jax.random.key_data(key) == jax.random.key_data(its_key))
        return params, {**extra, "bad": bad}

    def loss(params, extra, batch, key, step):
        value, aux = base.losses["model"](params, extra, batch, key, step)
        bad = extra["bad"] & (step == 12)
        if what == "metric":
            return value, aux._replace(metrics={"brightness": jnp.where(bad, jnp.inf, 0.0)})
        if what == "state":  # only this seed moves
            return jnp.where(extra["bad"], value, 0.0), aux
        return jnp.where(bad, jnp.nan, value), aux

    return base._replace(init=init, losses={"model": loss})


@pytest.mark.parametrize(("what", "said"), [("loss", "loss/model"), ("metric", "brightness")])
def test_the_seed_that_is_not_finite_is_named(tmp_path, what, said):
    message = rf"^step 13: {said} of seed_index 2 is (nan|inf)\. Last good checkpoint: step 10\."
    with pytest.raises(RunError, match=message):
        run(tmp_path, model=failing(what))


def test_the_seed_whose_validation_is_not_finite_is_named(tmp_path):
    scores = toys.validator([1.0, np.nan, 1.0])
    message = "step 5: the validation's bits_per_dim of seed_index 1 is nan"
    with pytest.raises(RunError, match=message):
        run(tmp_path, validate_every=5, validate=scores)


def test_the_seed_whose_state_is_not_finite_is_named(tmp_path):
    """The last update overflows, though its loss and gradient are finite."""
    fast = OptimizerConfig(name="sgd", learning_rate=3e38)
    model = failing("state")

    def bright(batch, key):
        return {**batch, "image": batch["image"] + jnp.uint8(200)}

    message = r"step 1: a number in params\.model\.\S+ of seed_index 2 is -?inf"
    with pytest.raises(RunError, match=message):
        run(tmp_path, model=model, transform=bright, optimizer=fast, steps=1, steps_per_call=1)


def test_summary_and_its_numbers():
    values = [1.0, 2.0, 4.0]
    summary = summarise(gather([{"a": value, "b": 5.0} for value in values]), 5)
    error = np.sqrt(((np.array(values) - 7 / 3) ** 2).sum() / 2) / np.sqrt(3)
    assert summary == pytest.approx(
        {
            "a": 7 / 3,
            "a/standard_error": error,
            "a/seed_5": 1.0,
            "a/seed_6": 2.0,
            "a/seed_7": 4.0,
            "b": 5.0,
            "b/standard_error": 0.0,
            "b/seed_5": 5.0,
            "b/seed_6": 5.0,
            "b/seed_7": 5.0,
        }
    )
    assert {type(value) for value in summary.values()} == {float}
    assert summarise(gather([{"a": 1.5}]), 5) == {"a": 1.5}


def test_a_shown_line_has_mean_and_standard_error_alone(capsys):
    progress = make_progress(0, 20, 8)
    progress.metrics(5, "train", {"loss/model": [1.0, 2.0], "images_per_second": 7.0})
    assert capsys.readouterr().out == (
        "step 5/20  train  loss/model 1.5 ± 0.5  images_per_second 7\n"
    )
