"""Tiny runs that the tests of verbs share; each test gets a copy of its own."""

import shutil

import pytest
from tiny_runs import CONFIG, rnngen


@pytest.fixture(scope="session")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.py"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="session")
def runs(tmp_path_factory, config):
    """Two trained runs: a pixel RNN without classes, a row RNN with."""
    root = tmp_path_factory.mktemp("runs")
    assert rnngen("train", f"--config={config}", f"--workdir={root}/pixel") == 0
    assert rnngen("train", f"--config={config}:row_rnn-labels", f"--workdir={root}/row") == 0
    return root


@pytest.fixture
def pixel(runs, tmp_path):
    return shutil.copytree(runs / "pixel", tmp_path / "pixel")


@pytest.fixture
def row(runs, tmp_path):
    return shutil.copytree(runs / "row", tmp_path / "row")
