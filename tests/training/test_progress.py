"""A bar on a terminal, plain lines elsewhere, nothing from other processes."""

import io
import sys

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


def test_other_processes_are_silent(monkeypatch, capsys):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    show(make_progress(0, 20, 8))
    assert capsys.readouterr() == ("", "")
