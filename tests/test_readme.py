"""Every command and every piece of Python in README.md and docs/ works.

The two commands of the README's start, which install, are run as they stand by `.ci/run`. All
others run here, page by page, in their order and in one folder, commands through the command line's
own entry. Training is cut short; where no command of the page reads the run, the step is traced on
the data of the command, and neither compiled nor run. Blocks of `bash` are for machines elsewhere
and are only parsed.
"""

import gzip
import pathlib
import re
import shlex
import shutil
import struct
import subprocess
import sys
from typing import NamedTuple

import jax
import numpy as np
import pytest
from PIL import Image
from tiny_runs import sizes_of

from rnngen_jax import cells, continuing, data, main, models, runs
from rnngen_jax import commands as verbs
from rnngen_jax.benchmarks import machine, peers
from rnngen_jax.pods.programs import programs
from rnngen_jax.runs import tokenizers

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
}

# What makes a training short; everything but a model's sizes stays as the command says. Only the
# quickstart validates, and draws pictures at its end: each is a program more to compile.
SHORT = ["steps=2", "steps_per_call=1"]
ELSEWHERE = ["validate_every=0", "sample_every=0"]
QUICKSTART = ["validate_every=2", "sample_every=2", "num_samples=4"]

# What of a training is not in its step: it is run, even if no command of its page reads the run.
RUN = ("--config.training.parallelism=", "--config.data.")

# What makes a piece of Python quick, by page: what it says, and what is run in its place.
SMALLER = {"docs/howto/own_images.md": ("SIDE = 32", "SIDE = 8")}


class Block(NamedTuple):
    """A fenced block: its language, the file that it is by its title, if any, and its text."""

    language: str
    file: str | None
    text: str


def blocks(page):
    found = re.findall(r'^```(\S*)(?: title="(.*?)")?\n(.*?)^```$', page, re.DOTALL | re.MULTILINE)
    return [Block(language, file or None, text) for language, file, text in found]


def commands(page):
    """The words of each command of a page."""
    shell = [block.text for block in blocks(page) if block.language == "sh"]
    return [words for text in shell for words in split(text)]


def split(text):
    return [shlex.split(part) for line in text.splitlines() for part in line.split(" && ")]


def write_idx(folder, num, size=12):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part in ("train", "t10k"):
        images = rng.integers(0, 256, (num, size, size), np.uint8)
        labels = np.arange(num, dtype=np.uint8) % 10
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            with gzip.open(folder / f"{part}-{name}-ubyte.gz", "wb") as file:
                file.write(head + array.tobytes())


def write_photographs(folder, num, height=16, width=24):
    folder.mkdir()
    rng = np.random.default_rng(0)
    for n in range(num):
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{n:02}.jpg")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder like a clone of the project, with data sets like MNIST and with photographs.

    Cells and models that a page writes into it are found like those of the package.
    """
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    for name in ("mnist", "fashion_mnist"):
        write_idx(tmp_path / "datasets" / name, 80)
    write_photographs(tmp_path / "photographs", 12)
    monkeypatch.chdir(tmp_path)
    for package in (cells, models):
        added = tmp_path / package.__name__.replace(".", "/")
        added.mkdir(parents=True)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(added)])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in (getattr(sys.modules[name], "__file__", None) or ""):
            parent, _, child = name.rpartition(".")
            delattr(sys.modules[parent], child)
            del sys.modules[name]


def sizes(words):
    """Flags of tiny sizes for a training's model, but for those that the command sets itself."""
    (config,) = (word.removeprefix("--config=") for word in words if word.startswith("--config="))
    model = pathlib.Path(config.split(":")[0]).stem
    fields, small = models.config_class(model).__dataclass_fields__, sizes_of(model)
    tiny = [f"--config.model.{name}={small[name]}" for name in small.keys() & fields.keys()]
    given = {word.split("=")[0] for word in words}
    if "--config.model.input_features" in given:  # which may have to be equal
        given.add("--config.model.features")
    return sorted(flag for flag in tiny if flag.split("=")[0] not in given)


def shortened(words):
    """A command as it is run here."""
    if words[1] == "train":
        short = SHORT + (QUICKSTART if "--workdir=runs/digits" in words else ELSEWHERE)
        words = words + [f"--config.training.{field}" for field in short] + sizes(words)
        if re.search("mnist|:folder", " ".join(words)):
            words.append("--config.training.batch_size=8")
    if any(word.startswith("--iw_samples") for word in words):
        words = [*words, "--num=4"]
    if words[1] == "bench":
        words = [*words, "--rounds=1", "--shapes=8,2,3,4"]
    return words


@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if blocks(text)])
def test_every_block_of_a_page_works(page, place, monkeypatch, capsys):
    monkeypatch.setattr(peers, "names", lambda: ["flax_linen"])  # test_peers.py has all
    monkeypatch.setattr(machine, "measure", lambda: machine.Machine("toy", "cpu", 2, 1, 1, {}, {}))
    names = {}  # of the page's Python, which goes on from block to block
    for block in blocks(PAGES[page]):
        if block.file is not None:
            (place / block.file).parent.mkdir(parents=True, exist_ok=True)
            (place / block.file).write_text(block.text)
        elif block.language == "bash":
            assert "rnngen " not in block.text, "a command of ours is run"
            subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
        elif block.language == "python":
            exec(block.text.replace(*SMALLER.get(page, ("", ""))), names)
        else:
            for words in split(block.text):
                with monkeypatch.context() as patch:
                    if words[1] == "train" and only_trains(words, PAGES[page]):
                        patch.setattr(runs, "train", trace)
                    run(words, place, capsys)


def run(words, place, capsys):
    if words[0] in ("pip", "pytest"):
        return  # .ci/run runs those of the README's start
    assert words[0] == "rnngen", words
    assert main.run(shortened(words)) == 0, (words, capsys.readouterr().err)
    for out in [word.removeprefix("--out=") for word in words if word.startswith("--out=")]:
        assert (place / out).stat().st_size > 0


def only_trains(words, page):
    """Whether a training is not continued, nor is its run read, by any other command of its page.

    A page's Python may read any run.
    """
    (workdir,) = (word.removeprefix("--workdir=") for word in words if "--workdir=" in word)
    texts = [block.text for block in blocks(page) if block.language in ("sh", "python")]
    named = re.findall(rf"{re.escape(workdir)}(?![\w-])", "\n".join(texts))
    return len(named) == 1 and not any(word.startswith(RUN) for word in words)


def trace(given, folder, **how):
    """In the place of `runs.train`: traces the step of a config that is checked, on its data."""
    settings = continuing.resolve(given)
    dataset = data.load(settings.data)
    if settings.tokenizer:
        settings, _ = tokenizers.adopt(settings, tokenizers.open_tokenizer(settings))
    assert dataset.splits["train"].num >= settings.training.batch_size
    step = programs(settings, dataset)["train"]
    (state, *_), _ = (lowered := step.lower(jax.devices()[:1], step.batch_size)).args_info
    after, metrics = lowered.out_info
    assert jax.tree.structure(after.params) == jax.tree.structure(state.params)
    assert metrics
    print(f"traced: {folder}")
    return runs.Outcome(settings.training.steps)


def test_a_training_is_run_if_its_run_is_read_or_continued():
    train, other = ["rnngen", "train", "--config=a.py", "--workdir=runs/a"], "--workdir=runs/a-b"
    page = "```sh\nrnngen train --config=a.py --workdir=runs/a\n{}\n```\n"
    assert only_trains(train, page.format(f"rnngen evaluate {other}"))
    for line in (
        "rnngen evaluate --workdir=runs/a",
        "rnngen train --config=a.py --workdir=runs/a --config.training.steps=9",
        "rnngen train --config=b.py --workdir=runs/b --config.tokenizer=runs/a",
    ):
        assert not only_trains(train, page.format(line))
    python = '```python\nrun = rg.load("runs/a")\n```\n'
    assert not only_trains(train, page.format("") + python)
    mapped = [*train, "--config.training.parallelism=pmap"]
    assert not only_trains(mapped, page.format(""))


def test_every_block_is_one_that_is_run_and_every_replacement_is_of_something():
    for name, page in PAGES.items():
        assert {block.language for block in blocks(page)} <= {"sh", "bash", "python"}, name
        assert page.count("```") == 2 * len(blocks(page)), name
    for name, (old, _) in SMALLER.items():
        assert PAGES[name].count(old) == 1


def test_every_verb_has_a_command():
    every = [words for page in PAGES.values() for words in commands(page)]
    assert {words[1] for words in every if words[0] == "rnngen"} == set(verbs.names())


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 200


def test_ci_runs_the_two_commands_of_the_start():
    script = (ROOT / ".ci" / "run").read_text()
    for name in ("quickstart", "tests"):
        assert f"<!-- ci: {name} -->\n```sh\n" in README
        assert f"block {name}" in script
    installing = [words for words in commands(README) if words[0] in ("pip", "pytest")]
    assert len(installing) == 3  # pip; pip and pytest: nothing that installs stands elsewhere


def prose(page):
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page, flags=re.DOTALL | re.MULTILINE)


def links(page):
    """What a page links: pairs of a file, "" for itself, and a heading's anchor, "" for none.

    Addresses on the web are left out.
    """
    targets = re.findall(r"\]\((?!https?://)([^)\s]+)\)", prose(page))
    return [(file, anchor) for file, _, anchor in (target.partition("#") for target in targets)]


def anchors(page):
    """The anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_file_picture_and_heading_that_is_linked_is_there(page):
    for file, anchor in links(PAGES[page]):
        path = (ROOT / page).parent / file if file else ROOT / page
        assert path.is_file(), file
        assert not anchor or anchor in anchors(path.read_text()), (file, anchor)


def test_every_page_and_picture_is_linked_from_some_page():
    linked = {
        ((ROOT / name).parent / file).resolve()
        for name, page in PAGES.items()
        for file, _ in links(page)
    }
    pages = {path for path in map(ROOT.joinpath, PAGES) if path.parent.name != "api"}
    wanted = pages | set((ROOT / "docs").rglob("*.png"))
    assert wanted - {ROOT / "README.md"} <= linked
