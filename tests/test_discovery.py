"""A file is found by what it defines, and by nothing else; nothing is imported for it."""

import zipfile

import pytest
import tiny_runs

from rnngen_jax import cells, commands, models, recurrence
from rnngen_jax.benchmarks import peers, suites
from rnngen_jax.data import names as sources
from rnngen_jax.discovery import defining, definitions, modules

SOURCE = """
import os.path, json as j
from json import loads, dumps as write

if len(j.__name__):
    HIDDEN = 1

NUMBER = OTHER = 3
TYPED: int = 4
ANNOUNCED: int

def plain(features, /, size=3, *more, option=1, **rest):
    inner = 2

class Config:
    field = 1
"""


def test_definitions_are_what_stands_at_the_top_level():
    functions = {"plain": ("features", "size")}
    others = {"os", "j", "loads", "write", "NUMBER", "OTHER", "TYPED", "Config"}
    assert definitions(SOURCE) == functions | dict.fromkeys(others)
    assert definitions(SOURCE.encode("utf-8-sig")) == definitions(SOURCE)
    with pytest.raises(SyntaxError):
        definitions("def run(:")


@pytest.fixture
def package(tmp_path):
    """Of a file with both names, a sub-package, files with one of them or none."""
    folder = tmp_path / "package"
    (folder / "nested").mkdir(parents=True)
    both = "raise SystemExit('imported')\nFLAGS = ()\ndef run(): ...\n"
    for path, text in {
        "both.py": both,
        "nested/__init__.py": both,
        "one.py": "def run(): ...\n",
        "none.py": '"""run, FLAGS"""\n',
        "notes.txt": both,
    }.items():
        (folder / path).write_text(text)
    return folder


def test_modules_are_found_by_all_that_they_define(package):
    assert defining([str(package)], "FLAGS", "run") == ["both", "nested"]
    assert defining([str(package)], "run") == ["both", "nested", "one"]
    assert modules([str(package)])["none"] == {}


def test_modules_are_found_within_an_archive(package, tmp_path):
    archive = tmp_path / "archive.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in package.rglob("*"):
            file.write(path, path.relative_to(tmp_path))
    assert defining([f"{archive}/package"], "FLAGS", "run") == ["both", "nested"]


@pytest.mark.parametrize(
    ("names", "among", "not_among"),
    [
        (cells.names, "gru", {"base", "convolved", "learned_carry", "stack"}),
        (recurrence.names, "newton", {"base", "stacked"}),
        (models.names, "draw", {"base", "grid", "latent"}),
        (sources, "folder", {"base", "feed", "source"}),
        (commands.names, "train", {"base"}),
        (peers.names, "torch_nn", {"base"}),
        (suites.names, "memory", {"__init__"}),
    ],
)
def test_each_folder_finds_its_own_kind(names, among, not_among):
    assert among in names()
    assert not not_among & set(names())


def test_names_are_found_without_importing_what_bears_them():
    code = (
        "import sys; from rnngen_jax import cells, commands, models, recurrence; import jax;"
        "before = set(sys.modules);"
        "found = [*cells.names(), *commands.names(), *models.names(), *recurrence.names()];"
        "new = {name for name in set(sys.modules) - before if name.startswith('rnngen_jax')};"
        "sys.exit(f'imported {new}' if new or not found else 0)"
    )
    tiny_runs.python(code)
