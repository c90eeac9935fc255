"""A bar on a terminal, plain lines elsewhere, nothing from other processes."""

import io
import re
import sys
import time

import jax
import pytest

from rnngen_jax.training.progress import make_progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def show(progress):
    progress.say("hello")
    progress.metrics(5, "train", {"loss/model": 0.25})
    progress.metrics(5, "validation", {"bits_per_dim": 1.5})
    progress.advance(5, 0.125)
    progress.close()


def test_plain_lines(capsys):
    show(make_progress(0, 20, 8))
    printed = capsys.readouterr()
    assert printed.out == (
        "hello\nstep 5/20  train  loss/model 0.25\nstep 5/20  validation  bits_per_dim 1.5\n"
    )
    assert printed.err == ""


@pytest.mark.parametrize("start", [0, 10])
def test_a_bar_on_a_terminal(monkeypatch, capsys, start):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    show(make_progress(start, 20, 8))
    shown = terminal.getvalue()
    assert f"{start + 5}/20" in shown
    assert "images/s" in shown
    assert "loss 0.125" in shown
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["hello", "step 5/20  validation  bits_per_dim 1.5"]


@pytest.fixture
def clock(monkeypatch):
    """A clock that advances only by adding seconds to `clock[0]`."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_plain_lines_tell_the_time_that_is_left(capsys, clock):
    progress = make_progress(100, 400, 8)
    clock[0] += 60  # such as placing data
    with progress.compiling():
        assert capsys.readouterr().out == "compiling ..."
        clock[0] += 192
    assert capsys.readouterr().out == " 3.2 min\n"
    for _ in range(5):
        clock[0] += 2
        progress.advance(10, 0.5)
    progress.metrics(150, "train", {"loss/model": 0.25})  # 50 steps in 10 s, 250 to go
    clock[0] += 40
    progress.metrics(150, "validation", {"bits_per_dim": 1.5})  # 50 steps in 50 s
    progress.advance(250, 0.5)
    progress.metrics(400, "train", {"loss/model": 0.25})
    assert capsys.readouterr().out.splitlines() == [
        "step 150/400  train  loss/model 0.25  50.0 s left",
        "step 150/400  validation  bits_per_dim 1.5  4.2 min left",
        "step 400/400  train  loss/model 0.25",
    ]


def test_days_are_told_in_hours(capsys, clock):
    progress = make_progress(0, 100, 8)
    clock[0] += 3600
    progress.advance(1, 0.5)
    progress.metrics(1, "train", {})
    assert capsys.readouterr().out.endswith("  99.0 h left\n")


def test_a_terminal_is_told_of_compiling(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = make_progress(0, 20, 8)
    with progress.compiling():
        assert "compiling" in terminal.getvalue()
    assert re.fullmatch(r"compiling \.\.\. \d\.\d s\n", capsys.readouterr().out)
    progress.close()
    assert "compiling" not in terminal.getvalue().rsplit("\r", 1)[-1]


def test_other_processes_are_silent(monkeypatch, capsys):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    progress = make_progress(0, 20, 8)
    show(progress)
    with progress.compiling():
        pass
    assert capsys.readouterr() == ("", "")
