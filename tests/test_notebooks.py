"""Every committed notebook runs, and its stored outputs are those of its code."""

import contextlib
import io
import json
import pathlib
import re
import warnings

import jax
import matplotlib
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt

FOLDER = pathlib.Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
OURS = "notebook|helpers|rnngen_jax"  # whose deprecations are errors
QUOTED = re.compile(r"\d+\.\d+(?:e[-+]?\d+)?|\d+e[-+]?\d+")
SENTENCE_END = re.compile(r"\.(?=\s|$)")
NUMBER = re.compile(r"[-+]?\d[\d.,]*(e[-+]?\d+)?")

# What makes trainings short, and averages of few draws: what the code says, and what is run in its
# place. As they stand they run behind the marker `slow`. All that a notebook asserts holds of both.
SHORTER = {
    "01_recurrent_cells": {
        'train_last_pixel_rnn(start, images["train"], 1, **kind)': (
            'train_last_pixel_rnn(start, images["train"], 1, **kind, steps=40)'
        ),
    },
    "02_how_far_a_gradient_reaches": {
        "T, F, STEPS, IMAGES = 64, 24, 150, 8": "T, F, STEPS, IMAGES = 64, 24, 40, 2",
    },
    "04_pixel_recurrence": {
        "zip(axes, (1, 4), strict=True)": "zip(axes, (1, 2), strict=True)",
        "model.sample(params, extra, jax.random.key(1), 24)": (
            "model.sample(params, extra, jax.random.key(1), 8)"
        ),
    },
    "05_vae": {
        "STEPS, BATCH = 500, 32": "STEPS, BATCH = 200, 32",
    },
    "06_draw": {
        "HALF, BATCH = 600, 32": "HALF, BATCH = 400, 32",
        "for n in range(50)]": "for n in range(10)]",
    },
    "07_gan": {
        "ROUNDS, PER_ROUND, BATCH = 6, 150, 32": "ROUNDS, PER_ROUND, BATCH = 6, 10, 16",
    },
    "08_from_python": {
        "config.training.steps, config.training.batch_size = 200, 32": (
            "config.training.steps, config.training.batch_size = 80, 32"
        ),
    },
    "09_codebooks": {"STEPS, BATCH = 300, 32": "STEPS, BATCH = 120, 32"},
}

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells_of(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def code_cells(path):
    return [cell for cell in cells_of(path) if cell["cell_type"] == "code"]


def printed(cell):
    """What a cell has printed, as it is stored."""
    streams = (out for out in cell["outputs"] if out["output_type"] == "stream")
    return "".join("".join(out["text"]) for out in streams)


def shape_of(text):
    """Text without its numbers, whose last digits differ between machines."""
    return " ".join(NUMBER.sub("#", text).split())


@pytest.fixture
def as_it_was(tmp_path, monkeypatch):
    """Runs in a folder of its own; puts back JAX's precision and Matplotlib's state."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(FOLDER)  # where a notebook finds helpers.py
    wide = jax.config.jax_enable_x64
    with plt.rc_context():
        yield
    plt.close("all")
    jax.config.update("jax_enable_x64", wide)


def test_the_notebooks_are_there():
    stems = {path.stem for path in NOTEBOOKS}
    assert stems >= {
        "01_recurrent_cells",
        "02_how_far_a_gradient_reaches",
        "03_three_ways_through_time",
        "04_pixel_recurrence",
        "05_vae",
        "06_draw",
        "07_gan",
        "08_from_python",
        "09_codebooks",
    }


@pytest.mark.parametrize("length", ["shorter", pytest.param("whole", marks=pytest.mark.slow)])
@every_notebook
def test_runs_and_prints_what_is_stored(path, length, as_it_was, monkeypatch):
    replaced = SHORTER.get(path.stem, {}) if length == "shorter" else {}
    for old in replaced:
        assert sum(source(cell).count(old) for cell in code_cells(path)) == 1, old
    figures = []
    monkeypatch.setattr(plt, "show", lambda: (figures.extend(plt.get_fignums()), plt.close("all")))
    names = {"__name__": "notebook"}
    for number, cell in enumerate(code_cells(path), start=1):
        text = source(cell)
        for old, new in replaced.items():
            text = text.replace(old, new)
        code = compile(text, f"{path.name}, cell {number}", "exec")
        out = io.StringIO()
        figures.clear()
        with warnings.catch_warnings(), contextlib.redirect_stdout(out):
            for deprecated in (DeprecationWarning, FutureWarning):
                warnings.filterwarnings("error", category=deprecated, module=OURS)
            exec(code, names)
        assert shape_of(out.getvalue()) == shape_of(printed(cell)), f"cell {number} is stale"
        assert len(figures) == stored_figures(cell), f"cell {number} shows other figures"


@every_notebook
def test_is_stored_as_it_ran(path):
    cells = code_cells(path)
    counts = [cell["execution_count"] for cell in cells]
    assert counts == list(range(1, len(cells) + 1))
    for cell in cells:
        assert all(out["output_type"] != "error" for out in cell["outputs"])
        assert all(out.get("name") != "stderr" for out in cell["outputs"])
        assert stored_figures(cell) == source(cell).count("plt.show()")
    assert any(map(printed, cells))
    assert sum(map(stored_figures, cells)) > 0
    assert path.stat().st_size < 400_000


@every_notebook
def test_is_short_and_says_what_was_learnt(path):
    cells = cells_of(path)
    first, *_, last = cells
    assert first["cell_type"] == last["cell_type"] == "markdown"
    assert "**Question.**" in source(first)
    assert "**For** " in source(first)
    assert source(last).startswith("## What was learnt\n")
    assert 3 <= len(SENTENCE_END.findall(source(last))) <= 8
    for cell in code_cells(path):
        assert len(source(cell).splitlines()) <= 30, source(cell)[:80]


@every_notebook
def test_what_was_learnt_quotes_what_was_printed(path):
    """Numbers with a decimal point or an exponent, which a new run may change."""
    out = "\n".join(map(printed, code_cells(path)))
    known = set(QUOTED.findall(out))
    quoted = QUOTED.findall(source(cells_of(path)[-1]))
    assert quoted
    assert [number for number in quoted if number not in known] == []


def source(cell):
    return "".join(cell["source"])


def stored_figures(cell):
    return sum("image/png" in out.get("data", {}) for out in cell["outputs"])
