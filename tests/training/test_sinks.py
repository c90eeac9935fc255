"""metrics.jsonl and TensorBoard's files: written immediately, truncated on resuming."""

import errno
import io
import json
import struct

import numpy as np
import pytest
import training_toys as toys
from PIL import Image

from rnngen_jax.errors import UserError
from rnngen_jax.training import sinks


def written(path, steps):
    sink = sinks.jsonl(path)
    for step in steps:
        sink.write(step, "train", {"loss/model": step / 3})
    sink.close()


def test_lines_are_on_disk_at_once_and_read_back_exactly(tmp_path):
    path = tmp_path / "metrics.jsonl"
    sink = sinks.jsonl(path)
    sink.write(5, "validation", {"bits_per_dim": 1 / 3})
    assert (
        path.read_text()
        == json.dumps({"step": 5, "split": "validation", "bits_per_dim": 1 / 3}) + "\n"
    )
    sink.close()
    written(path, [10])  # appends
    assert sinks.read(path) == [
        {"step": 5, "split": "validation", "bits_per_dim": 1 / 3},
        {"step": 10, "split": "train", "loss/model": 10 / 3},
    ]


def test_numbers_that_are_no_json_are_refused(tmp_path):
    sink = sinks.jsonl(tmp_path / "metrics.jsonl")
    with pytest.raises(ValueError):
        sink.write(1, "train", {"loss/model": float("nan")})
    sink.close()
    assert sinks.read(tmp_path / "metrics.jsonl") == []


def test_truncate_drops_later_lines_and_a_torn_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    written(path, [5, 10, 15])
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(path.read_bytes() + b'{"step": 20, "spl')
    assert [line["step"] for line in sinks.read(path)] == [5, 10, 15]
    sinks.truncate_after(path, 10)
    assert path.read_bytes() == whole[0] + whole[1]
    assert list(tmp_path.iterdir()) == [path]


def test_truncate_drops_a_torn_line_of_an_early_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    written(path, [5])
    path.write_bytes(path.read_bytes() + b'{"step": 6}')  # whole JSON, but no line break
    sinks.truncate_after(path, 10)
    assert [line["step"] for line in sinks.read(path)] == [5]


def test_truncate_leaves_a_file_alone_that_has_nothing_to_drop(tmp_path):
    path = tmp_path / "metrics.jsonl"
    sinks.truncate_after(path, 10)
    assert not path.exists()
    written(path, [5, 10])
    before = path.stat()
    sinks.truncate_after(path, 10)
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize(
    "line",
    ["{broken", "[1]", '{"loss": 1}', '{"step": "5"}', "\0\0", "[" * 100_000],
    ids=["broken", "list", "no step", "text", "NUL", "deep"],
)
def test_a_line_that_is_no_metrics_is_named_and_kept(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    written(path, [5])
    path.write_text(path.read_text() + line + "\n")
    before = path.read_bytes()
    for use in (sinks.read, lambda path: sinks.truncate_after(path, 1)):
        with pytest.raises(UserError, match="line 2"):
            use(path)
    assert path.read_bytes() == before


def test_lines_that_are_no_utf_8_are_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    written(path, [5])
    path.write_bytes(path.read_bytes() + '{"step": 6, "split": "é"}\n'.encode("latin-1"))
    with pytest.raises(UserError, match="line 2"):
        sinks.read(path)


def test_what_has_been_written_and_is_gone_is_told(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert sinks.shortfall(path, 0) is None
    assert sinks.shortfall(path, 10) == f"{path} is missing, and with it the lines up to step 10"
    written(path, [5, 10])
    assert sinks.shortfall(path, 10) is None
    assert sinks.shortfall(path, 15) == (
        f"{path} ends at step 10: the lines from there to step 15 are gone"
    )


def test_a_disk_that_is_full_is_told_with_the_file(tmp_path, monkeypatch):
    sink = sinks.tensorboard(tmp_path, 0)
    (path,) = tmp_path.iterdir()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    lines = sinks.jsonl(tmp_path / "metrics.jsonl")
    for one, file in ((sink, path), (lines, tmp_path / "metrics.jsonl")):
        with pytest.raises(OSError, match="No space left") as error:
            one.write(1, "train", {"loss/model": 0.5})
        assert error.value.filename == str(file)
        one.close()


def test_reading_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="run train first"):
        sinks.read(tmp_path / "metrics.jsonl")


def events(folder):
    """(step, tag or session start, number) of each event, in the order of the files."""
    from tensorboardX.proto.event_pb2 import SessionLog

    found = []
    for event in raw_events(folder):
        found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
        if event.session_log.status == SessionLog.START:
            found.append((event.step, "start", None))
    return found


def raw_events(folder):
    """The events of all files, parsed."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack("<Q", data[at : at + 8])
            yield Event.FromString(data[at + 12 : at + 12 + length])
            at += 12 + length + 4


def test_tensorboard_has_the_metrics_and_purges_on_resuming(tmp_path):
    sink = sinks.tensorboard(tmp_path, 10)
    sink.write(15, "train", {"loss/model": 0.5})
    sink.close()
    assert events(tmp_path) == [(11, "start", None), (15, "train/loss/model", 0.5)]


def test_tensorboard_has_pictures(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    sink = sinks.tensorboard(tmp_path, 0)
    sink.image(15, "samples", picture)
    sink.close()
    (event,) = [event for event in raw_events(tmp_path) if event.summary.value]
    (value,) = event.summary.value
    assert (event.step, value.tag) == (15, "samples")
    with Image.open(io.BytesIO(value.image.encoded_image_string)) as stored:
        np.testing.assert_array_equal(np.asarray(stored), picture)


def hyperparameters(folder):
    """The hyper-parameters of the run in a folder of event files."""
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    (data,) = [
        value.metadata.plugin_data
        for event in raw_events(folder)
        for value in event.summary.value
        if value.tag == "_hparams_/session_start_info"
    ]
    assert data.plugin_name == "hparams"
    found = HParamsPluginData.FromString(data.content).session_start_info.hparams
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in found.items()}


def test_tensorboard_has_the_hyperparameters(tmp_path):
    given = {"model.cell": "gru", "model.layers": 2, "model.position": True, "a.b": 0.5}
    sinks.tensorboard(tmp_path, 0, given).close()
    assert hyperparameters(tmp_path) == given


def test_a_run_shows_its_config_and_its_grids(tmp_path):
    picture = np.full((4, 6, 3), 9, np.uint8)
    toys.run(
        tmp_path,
        record={"model": {"name": "toy", "features": 5}},
        sample_every=10,
        draw=lambda params, extra, step: picture + np.uint8(step),
    )
    found = tmp_path / "tensorboard"
    assert hyperparameters(found) == {"model.name": "toy", "model.features": 5}
    assert [(step, tag) for step, tag, _ in events(found) if tag == "samples"] == [
        (10, "samples"),
        (20, "samples"),
    ]


def test_together_passes_on_to_all():
    seen = []
    one = sinks.Sink(
        lambda *a: seen.append(("one", *a)),
        lambda: seen.append("closed"),
        lambda *a: seen.append(("picture", *a)),
    )
    both = sinks.together([one, one])
    both.write(1, "train", {})
    both.image(2, "samples", None)
    both.close()
    expected = [("one", 1, "train", {})] * 2 + [("picture", 2, "samples", None)] * 2
    assert seen == expected + ["closed"] * 2
