"""Checkpoints: exact, verified bit by bit, refused if they belong to another model."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import training_toys as toys

from rnngen_jax.errors import RunError, UserError
from rnngen_jax.training.checkpoints import open_checkpoints
from rnngen_jax.training.digests import describe, digest, named
from rnngen_jax.training.state import create

MODEL = toys.autoencoder()


def make_state(model=MODEL, optimizer=None, ema=True):
    optimizers = dict.fromkeys(model.losses, optimizer or optax.adam(0.1))
    return functools.partial(create, model, optimizers, 0, ema)


@pytest.fixture(scope="module")
def state():
    return jax.tree.map(np.array, make_state()())


ABSTRACT = functools.cache(lambda: jax.eval_shape(make_state()))


def meta(best=None):
    return {"identity": toys.IDENTITY, "best": best, "stale": 0}


def write(folder, state, steps, keep=10, best=None):
    with open_checkpoints(folder, keep) as checkpoints:
        for step in steps:
            checkpoints.save(step, at(state, step), meta(best))


def at(state, step):
    return state._replace(step=np.int32(step))


def equal(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()


def damage(path, how):
    """Damages one checkpoint."""
    if how == "empty":
        for file in [*path.rglob("*")][::-1]:
            file.rmdir() if file.is_dir() else file.unlink()
    elif how == "truncated array":
        for file in payload(path):
            file.write_bytes(file.read_bytes()[:20])
    elif how == "missing arrays":
        for file in payload(path):
            file.unlink()
    elif how == "truncated meta":
        file = path / "meta" / "metadata"
        file.write_bytes(file.read_bytes()[:40])
    elif how == "changed meta":
        file = path / "meta" / "metadata"
        file.write_text(file.read_text().replace('"stale": 0', '"stale": 1'))
    elif how == "missing meta":
        (path / "meta" / "metadata").unlink()


DAMAGES = [
    "empty",
    "truncated array",
    "missing arrays",
    "truncated meta",
    "changed meta",
    "missing meta",
]


def payload(path):
    """The files that hold arrays."""
    return [file for file in (path / "state").rglob("d/*") if file.is_file()]


def test_what_is_saved_comes_back_bit_by_bit(tmp_path, state):
    odd = state._replace(
        step=np.int32(3),
        extra={
            **state.extra,
            "bfloat16": np.arange(5).astype(ml_dtypes.bfloat16),
            "denormal": np.float32([1e-42, -0.0]),
            "empty": np.zeros((0, 7), np.int32),
        },
    )
    write(tmp_path, odd, [3])
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), odd)
    restored, found = open_checkpoints(tmp_path).restore("latest", abstract, toys.IDENTITY)
    equal(restored, odd)
    assert found["step"] == 3
    assert found["versions"]["jax"] == jax.__version__


def test_the_newest_and_the_best_are_kept(tmp_path, state):
    best = {"step": 2, "score": 1.0}
    with open_checkpoints(tmp_path, keep=2) as checkpoints:
        for step in range(1, 7):
            checkpoints.save(step, at(state, step), meta(best if step >= 2 else None))
    with open_checkpoints(tmp_path, keep=2) as checkpoints:  # a later process
        checkpoints.save(7, at(state, 7), meta(best))
    reading = open_checkpoints(tmp_path)
    assert reading.steps() == [2, 6, 7]
    assert [reading.find(which) for which in ("best", "latest", 6, "6")] == [2, 7, 6, 6]
    assert reading.has_best()
    with open_checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(8, at(state, 8), meta({"step": 8, "score": 0.5}))
    assert reading.steps() == [8]


def test_no_best_without_a_validation(tmp_path, state):
    write(tmp_path, state, [1])
    reading = open_checkpoints(tmp_path)
    assert not reading.has_best()
    with pytest.raises(UserError, match="nothing has been validated; give --checkpoint=latest"):
        reading.find("best")


def test_a_best_that_is_gone_is_an_error(tmp_path, state):
    write(tmp_path, state, [2], best={"step": 1, "score": 0.0})
    with pytest.raises(UserError, match="best checkpoint, 1, is missing"):
        open_checkpoints(tmp_path).find("best")


def test_names_of_checkpoints_that_are_not_there(tmp_path, state):
    with pytest.raises(UserError, match="holds no checkpoint; run train first"):
        open_checkpoints(tmp_path / "none").find("latest")
    assert not (tmp_path / "none").exists()
    write(tmp_path, state, [1, 2])
    for which in (3, "3", "newest", "-1", "1.5", ""):
        with pytest.raises(UserError, match="allowed: best, latest, 1, 2"):
            open_checkpoints(tmp_path).find(which)


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_checkpoint_is_an_error_and_resuming_walks_back(tmp_path, state, how, capfd):
    write(tmp_path, state, [1, 2])
    damage(tmp_path / "2", how)
    reading = open_checkpoints(tmp_path)
    assert [(h.step, h.ok) for h in reading.health()] == [(1, True), (2, False)]
    assert reading.health()[1].reason
    for which in (2, "latest"):
        with pytest.raises(UserError, match=r"2 is damaged .*give --checkpoint=1"):
            reading.restore(which, ABSTRACT(), toys.IDENTITY)
    assert (tmp_path / "2").is_dir()  # reading moves nothing
    lines = []
    with open_checkpoints(tmp_path, 5) as checkpoints:
        restored, found = checkpoints.resume(ABSTRACT(), toys.IDENTITY, lines.append)
        equal(restored, at(state, 1))
        assert found["step"] == 1
        checkpoints.save(2, at(state, 2), meta())  # the step is free again
    assert len(lines) == 1
    assert "checkpoint 2 is damaged" in lines[0]
    assert (tmp_path / "2.damaged").is_dir()
    assert open_checkpoints(tmp_path).steps() == [1, 2]
    assert "Traceback" not in capfd.readouterr().err  # nor from a thread that was still reading


def test_where_no_checkpoint_is_sound_nothing_begins_anew(tmp_path, state):
    write(tmp_path, state, [1, 2])
    for step in ("1", "2"):
        damage(tmp_path / step, DAMAGES[0])
    with (
        open_checkpoints(tmp_path, 5) as checkpoints,
        pytest.raises(UserError, match="is intact; the newest, 2, is damaged"),
    ):
        checkpoints.resume(ABSTRACT(), toys.IDENTITY, print)
    assert open_checkpoints(tmp_path).steps() == [1, 2]


def test_a_file_in_the_place_of_the_folder_is_seen_at_once(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(UserError, match="is a file; checkpoints need a folder"):
        open_checkpoints(tmp_path / "checkpoints", 1)


def test_any_flipped_bit_of_the_arrays_is_seen(tmp_path, state):
    """Arrays with uncompressible, distinct bytes, so that a flip lands in a payload."""
    noise = np.random.default_rng(0).integers(0, 256, 4096).astype(np.uint8)
    odd = at(state._replace(extra={"noise": noise}), 1)
    write(tmp_path, odd, [1])
    inside = noise[1000:1016].tobytes()
    hits = [file for file in payload(tmp_path / "1") if inside in file.read_bytes()]
    assert len(hits) == 1
    data = bytearray(hits[0].read_bytes())
    data[data.index(inside)] ^= 1
    hits[0].write_bytes(bytes(data))
    (health,) = open_checkpoints(tmp_path).health()
    assert not health.ok
    assert "extra.noise" in health.reason or "checksum" in health.reason.lower()


def test_the_digest_sees_what_orbax_restores_silently(tmp_path, state):
    """Another array under the same meta, written by Orbax itself: only the digest can tell."""
    write(tmp_path, state, [1])
    arrays = {k: v for k, v in named(at(state, 1)).items() if v.size}
    name = "params.model.decoder.bias"
    flipped = arrays[name].copy()
    flipped.view(np.uint32)[2] ^= 1
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as writer:
        changed = {**arrays, name: flipped}
        writer.save(tmp_path / "1" / "state", args=ocp.args.PyTreeSave(changed), force=True)
    (health,) = open_checkpoints(tmp_path).health()
    assert health.reason == f"the digest of {name} differs"


def test_digests_depend_on_everything():
    array = np.arange(6, dtype=np.int32)
    others = [array.reshape(2, 3), array.astype(np.uint32), array + 1]
    assert all(describe(array) != describe(other) for other in others)
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})


@pytest.mark.parametrize("field", ["model.features", "spec.height", "model.cell"])
def test_a_checkpoint_of_another_model_is_refused(tmp_path, state, field):
    write(tmp_path, state, [1])
    section, name = field.split(".")
    other = json.loads(json.dumps(toys.IDENTITY))
    was = other[section].get(name, "missing")
    other[section][name] = 77
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    for use in (
        lambda c: c.restore(1, ABSTRACT(), other),
        lambda c: c.resume(ABSTRACT(), other, print),
        lambda c: c.restore_evaluated("latest", MODEL, other),
    ):
        with pytest.raises(UserError, match=f"another model: {field} is {was!r} there and 77 here"):
            use(open_checkpoints(tmp_path))
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}


def test_dtypes_and_shapes_are_never_cast(tmp_path, state):
    write(tmp_path, state, [1])
    for model, said in (
        (toys.autoencoder(dtype=jnp.bfloat16), r"must be bfloat16\[4\], got float32\[4\]"),
        (toys.autoencoder(features=6), r"must be float32\[6, 4\], got float32\[5, 4\]"),
    ):
        with pytest.raises(UserError, match=said):
            open_checkpoints(tmp_path).restore(1, jax.eval_shape(make_state(model)), toys.IDENTITY)
        with pytest.raises(UserError, match=said):
            open_checkpoints(tmp_path).restore_evaluated(1, model, toys.IDENTITY)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"optimizer": optax.sgd(0.1)}, "also has opt_state"), ({"ema": False}, "also has ema")],
)
def test_another_optimizer_or_average_is_refused(tmp_path, state, changes, said):
    write(tmp_path, state, [1])
    with pytest.raises(UserError, match=f"another optimizer or ema_decay: it {said}"):
        open_checkpoints(tmp_path).resume(
            jax.eval_shape(make_state(**changes)), toys.IDENTITY, print
        )


@pytest.mark.parametrize("ema", [True, False])
def test_evaluating_needs_no_optimizer_and_takes_the_average(tmp_path, ema):
    state = jax.tree.map(np.array, make_state(ema=ema)())
    if ema:
        state = state._replace(ema=jax.tree.map(lambda x: x + 1, state.ema))
    write(tmp_path, state, [4])
    found = open_checkpoints(tmp_path).restore_evaluated("latest", MODEL, toys.IDENTITY)
    equal(found.params, state.ema if ema else state.params)
    equal(found.extra, state.extra)
    assert found.step == 4


def test_reading_needs_no_right_to_write(tmp_path, state):
    write(tmp_path, state, [1])
    before = sorted(tmp_path.rglob("*"))
    reading = open_checkpoints(tmp_path)
    reading.health()
    reading.restore("latest", ABSTRACT(), toys.IDENTITY)
    assert sorted(tmp_path.rglob("*")) == before


def test_unfinished_saves_are_not_checkpoints_and_are_cleared(tmp_path, state):
    write(tmp_path, state, [1])
    unfinished = tmp_path / "2.orbax-checkpoint-tmp" / "state"
    unfinished.mkdir(parents=True)
    (unfinished / "half").write_bytes(b"x")
    assert open_checkpoints(tmp_path).find("latest") == 1
    write(tmp_path, state, [3])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "3"]


def test_only_plain_numbers_are_steps(tmp_path, state):
    write(tmp_path, state, [1])
    others = ["٣", "²", "007", "+9", "9 ", "old_9", "9.damaged"]
    for name in others:
        (tmp_path / name).mkdir()
    assert open_checkpoints(tmp_path).steps() == [1]
    write(tmp_path, state, [2])
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["1", "2", *others])


def test_a_save_that_cannot_be_written_is_told(tmp_path, state):
    folder = pathlib.Path(tmp_path / "checkpoints")
    checkpoints = open_checkpoints(folder, 1)
    folder.write_text("a file in the way")
    with pytest.raises(RunError, match="could not be written"):
        checkpoints.save(1, at(state, 1), meta())
    assert folder.read_text() == "a file in the way"


def test_nothing_to_resume(tmp_path):
    assert open_checkpoints(tmp_path, 1).resume(ABSTRACT(), toys.IDENTITY, print) is None
