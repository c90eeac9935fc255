"""The codec's suite: its cases at a tiny size, and what stops it."""

import numpy as np
import pytest

from rnngen_jax.benchmarks.problem import Settings, Shape
from rnngen_jax.benchmarks.suites import codec
from rnngen_jax.errors import RunError

SHAPE = Shape(2, 2, 4, 4)


def test_both_streams_are_timed_in_both_directions(monkeypatch):
    monkeypatch.setattr(codec, "MODELS", {"pixel_rnn": codec.MODELS["pixel_rnn"]})
    found = list(codec.run(Settings(1, (SHAPE,)), None))
    assert [(r.case, r.contender) for r in found] == [
        (f"pixel_rnn {work} 2,2,4,4", contender)
        for work in ("encode", "decode")
        for contender in ("ours", codec.FLAT)
    ]
    for record in found:
        values = record.values
        assert values["images/s"] == pytest.approx(4e3 / values["ms"])
        assert 0 < values["bits/dim"] < 16
    assert len({round(r.values["bits/dim"], 1) for r in found}) == 1
    assert codec.notes(found)[1].startswith(f"encode: {codec.FLAT} / ours: median ")


def test_a_table_of_all_levels_has_no_other_way():
    model, _ = codec.model_of("row_lstm categorical", SHAPE)
    assert not codec.codec.coarse(model)
    model, _ = codec.model_of("row_lstm", SHAPE)
    assert codec.codec.coarse(model)


def test_a_codec_that_loses_something_stops_the_bench(monkeypatch):
    real = codec.codec.coder

    def lossy(*given, **options):
        coder = real(*given, **options)

        def decode(streams, num):
            images, labels = coder.decode(streams, num)
            return np.where(images == images.max(), 0, images), labels

        return coder._replace(decode=decode)

    monkeypatch.setattr(codec.codec, "coder", lossy)
    with pytest.raises(RunError, match="pixel_rnn 2,2,4,4: other images come out than went in"):
        list(codec._case("pixel_rnn", SHAPE, 1))
