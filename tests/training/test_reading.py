"""A checkpoint that cannot be read is not damaged: the error says so, and nothing is moved."""

import errno
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import training_toys as toys

from rnngen_jax.errors import UserError
from rnngen_jax.training import stored
from rnngen_jax.training.checkpoints import open_checkpoints
from rnngen_jax.training.digests import digest
from rnngen_jax.training.standing import Standing
from rnngen_jax.training.state import create

MODEL = toys.autoencoder()
META = {**Standing().meta(), "identity": toys.IDENTITY}
OPTIMIZERS = dict.fromkeys(MODEL.losses, optax.sgd(0.1))


def make_state():
    return create(MODEL, OPTIMIZERS, 0, False)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    state = jax.tree.map(np.array, make_state())
    with open_checkpoints(folder, 5) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, state._replace(step=np.int32(step)), META)
    return folder


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "checkpoints")


def resume(folder, lines=None):
    abstract = jax.eval_shape(make_state)
    say = print if lines is None else lines.append
    with open_checkpoints(folder, 5) as checkpoints:
        return checkpoints.resume(abstract, toys.IDENTITY, say)


def names(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*"))


def uses(folder):
    """All functions that read a checkpoint, except `health`."""
    reading = open_checkpoints(folder)
    return [
        lambda: resume(folder),
        lambda: reading.restore(2, jax.eval_shape(make_state), toys.IDENTITY),
        lambda: reading.restore_evaluated("latest", MODEL, toys.IDENTITY),
    ]


def require_refused(folder, said):
    """Asserts that checkpoint 2 is neither called damaged nor moved."""
    before = names(folder)
    for use in uses(folder):
        with pytest.raises(stored.UnreadableError) as error:
            use()
        message = str(error.value)
        assert str(folder / "2") in message
        assert said in message
        assert "damaged" not in message
        assert "\n" not in message
    health = open_checkpoints(folder).health()[1]
    assert (health.step, health.ok) == (2, False)
    assert said in health.reason
    assert names(folder) == before


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs Linux")
@pytest.mark.parametrize("item", ["meta", "state"])
def test_an_input_output_error_is_no_damage(folder, item):
    """A link to a file whose first byte cannot be read, which TensorStore takes for its end."""
    file = folder / "2" / "meta" / "metadata"
    if item == "state":
        file = max((folder / "2" / "state").rglob("d/*"), key=lambda path: path.stat().st_size)
    file.unlink()
    file.symlink_to("/proc/self/mem")
    require_refused(folder, "Input/output error")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("part", ["meta/metadata", "state/_METADATA", "state", "."])
def test_a_lack_of_rights_is_no_damage(folder, part):
    path = folder / "2" / part
    mode = path.stat().st_mode
    path.chmod(0)
    try:
        require_refused(folder, "Permission denied")
    finally:
        path.chmod(mode)


# TensorStore's message, between its own words and the specification of the array.
DENIED = "PERMISSION_DENIED: Error opening: Permission denied [os_error_code='13'] [spec='{}']"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), "Permission denied"),
        (ValueError(DENIED), "Permission denied"),
    ],
)
def test_what_the_system_refuses_for_a_moment_is_no_damage(folder, monkeypatch, error, said):
    monkeypatch.setattr(ocp.Checkpointer, "restore", raising(error))
    require_refused(folder, said)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("no backend"), AssertionError()])
def test_what_has_nothing_to_do_with_files_passes(folder, monkeypatch, error):
    before = names(folder)
    monkeypatch.setattr(ocp.Checkpointer, "restore", raising(error))
    for use in [*uses(folder), open_checkpoints(folder).health]:
        with pytest.raises(type(error)):
            use()
    assert names(folder) == before


def raising(error):
    def restore(self, *args, **kwargs):
        raise error

    return restore


def test_a_folder_that_is_gone_is_no_damage(folder, monkeypatch):
    """Another process deletes the checkpoint while it is read."""

    def restore(self, path, args):
        shutil.rmtree(path)
        raise FileNotFoundError(f"{path} not found")

    monkeypatch.setattr(ocp.Checkpointer, "restore", restore)
    with pytest.raises(stored.UnreadableError, match="No such file or directory"):
        open_checkpoints(folder).restore(2, jax.eval_shape(make_state), toys.IDENTITY)


def rewrite(folder, change):
    """Another meta with a valid digest, as another version would write."""
    path = folder / "2" / "meta" / "metadata"
    meta = json.loads(path.read_text())
    del meta["digest"]
    change(meta)
    path.write_text(json.dumps({**meta, "digest": digest(meta)}))


def set_to(name, value):
    return lambda meta: meta.update({name: value})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda meta: meta.pop("step"), "lacks 'step'"),
        (lambda meta: meta.pop("identity"), "lacks 'identity'"),
        (lambda meta: meta.pop("arrays"), "lacks 'arrays'"),
        (lambda meta: meta.pop("best"), "lacks 'best'"),
        (set_to("step", "2"), "'step' is invalid"),
        (set_to("identity", None), "'identity' is invalid"),
        (set_to("arrays", []), "'arrays' is invalid"),
        (set_to("arrays", {"step": {"dtype": "int32"}}), "'arrays' is invalid"),
        (set_to("arrays", {"step": {"dtype": "int31", "shape": []}}), "'arrays' is invalid"),
        (set_to("arrays", {"step": {"dtype": "int32", "shape": [-1]}}), "'arrays' is invalid"),
        (set_to("best", 2), "'best' is invalid"),
        (set_to("best", {"step": 2}), "'best' is invalid"),
    ],
)
def test_a_meta_that_lacks_what_is_read_of_it(folder, change, said):
    rewrite(folder, change)
    reading = open_checkpoints(folder)
    assert said in reading.health()[1].reason
    with pytest.raises(UserError, match=said):
        reading.restore_evaluated("latest", MODEL, toys.IDENTITY)
    lines = []
    assert resume(folder, lines)[1]["step"] == 1
    assert len(lines) == 1
    assert said in lines[0]


@pytest.mark.parametrize("name", ["stale", "count", "sums"])
def test_a_meta_that_does_not_say_where_the_run_stands(folder, name):
    rewrite(folder, lambda meta: meta.pop(name))
    _, meta = resume(folder)
    with pytest.raises(UserError, match=f"checkpoint 2 lacks {name}, so no run can resume"):
        Standing.of(meta)


@pytest.mark.parametrize("room", [16, 20_000])
def test_a_checkpoint_that_cannot_be_written_is_told_once(tmp_path, room):
    """Orbax, asyncio and TensorStore would print more about each array that fails."""
    code = f"""
import resource, signal, sys
sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})
import numpy as np
import training_toys as toys
from rnngen_jax.errors import RunError
from rnngen_jax.training.checkpoints import open_checkpoints
from rnngen_jax.training.state import TrainState

noise = np.random.default_rng(0).bytes
params = {{str(i): np.frombuffer(noise(40_000), np.uint8) for i in range(40)}}
state = TrainState(np.int32(1), params, {{}}, {{}}, None)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, resource.RLIM_INFINITY))
try:
    with open_checkpoints({str(tmp_path)!r}, 1) as checkpoints:
        checkpoints.save(1, state, {{"identity": toys.IDENTITY, "best": None}})
except RunError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == ""
    assert f"could not be written to {tmp_path}: File too large. Those that" in done.stdout
    assert done.stdout.count("\n") == 1
