"""A machine without the devices that are asked for is told as that, and as no damage."""

import os
import subprocess
import sys

import pytest
from tiny_runs import rnngen, tree

FAILURES = {
    "as JAX raises it": (
        RuntimeError(
            "Unable to initialize backend 'tpu': no libtpu.so.\nmore (set JAX_PLATFORMS='' to ...)"
        ),
        "Unable to initialize backend 'tpu': no libtpu.so;",
    ),
    "with advice": (
        RuntimeError("Unable to initialize backend 'x' (set JAX_PLATFORMS='' to choose one)"),
        "Unable to initialize backend 'x';",
    ),
    "without a word": (AssertionError(), "this machine has no such device;"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_the_platform_the_reason_and_what_to_do_are_told(pixel, monkeypatch, capsys, failure):
    error, said = FAILURES[failure]
    before = tree(pixel)
    refuse(monkeypatch, error)
    assert rnngen("sample", f"--workdir={pixel}", f"--out={pixel}/new.png") == 1
    err = capsys.readouterr().err
    assert err == f"error: JAX_PLATFORMS=cpu cannot be used: {said} unset it, or set it to cpu.\n"
    assert tree(pixel) == before


@pytest.mark.parametrize("verb", ["train", "evaluate", "complete", "bench"])
def test_every_verb_that_computes_says_so(pixel, config, tmp_path, monkeypatch, capsys, verb):
    before = tree(pixel)
    refuse(monkeypatch, AssertionError())
    flags = {
        "train": (f"--config={config}", f"--workdir={tmp_path}/new"),
        "complete": (f"--workdir={pixel}", f"--out={tmp_path}/new.png"),
        "bench": ("--suite=compile",),
    }
    assert rnngen(verb, *flags.get(verb, (f"--workdir={pixel}",))) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: JAX_PLATFORMS=cpu cannot be used: ")
    assert err.count("\n") == 1
    assert tree(pixel) == before
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "new.png").exists()


def refuse(monkeypatch, error):
    def fail():
        raise error

    monkeypatch.setattr("jax.local_devices", fail)


def test_in_a_process_of_its_own(pixel):
    done = subprocess.run(
        [sys.executable, "-m", "rnngen_jax.main", "evaluate", f"--workdir={pixel}"],
        env={**os.environ, "JAX_PLATFORMS": "abacus"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: JAX_PLATFORMS=abacus cannot be used: ")
    assert "not in the list of known backends" in done.stderr
    assert done.stderr.count("\n") == 1
