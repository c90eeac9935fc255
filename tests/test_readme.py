"""Every command and every piece of Python in README.md works.

The two commands of its start, which install, are run as they stand by `.ci/run`. All others run
here, section by section, in their order and in one folder, through the command line's own entry;
training is cut short.
"""

import gzip
import pathlib
import re
import shlex
import shutil
import struct

import numpy as np
import pytest
from PIL import Image

from rnngen_jax import commands as verbs
from rnngen_jax import main
from rnngen_jax.benchmarks import machine, peers

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()

# What makes a training short; the model and everything else stay as the command says. Only the
# first section's draws pictures at its end: elsewhere that is a program more to compile.
SHORT = ["steps=2", "steps_per_call=1", "validate_every=2", "sample_every=0"]
PICTURES = {"Start": ["sample_every=2", "num_samples=4"]}


# Titles of the sections with a command to run, and the text of each.
PARTS = re.split(r"^## (.*)\n", README, flags=re.MULTILINE)
SECTIONS = {
    title: text for title, text in zip(PARTS[1::2], PARTS[2::2], strict=True) if "\n```sh\n" in text
}


def blocks(language, text=README):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(text=README):
    for block in blocks("sh", text):
        for line in block.strip().splitlines():
            for part in line.split(" && "):
                yield shlex.split(part)


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


def write_tiles(folder, num, size=8):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        (folder / split).mkdir(parents=True)
        for n in range(num):
            tile = rng.integers(0, 256, (size, size, 3), np.uint8)
            Image.fromarray(tile).save(folder / split / f"{n}.png")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder like a clone of the project, with data sets like MNIST and a folder of images."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    for name in ("mnist", "fashion_mnist"):
        write_idx(tmp_path / "datasets" / name, 80)
    write_tiles(tmp_path / "datasets" / "images", 40)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("section", SECTIONS)
def test_every_command_works(section, place, monkeypatch, capsys):
    monkeypatch.setattr(peers, "names", lambda: ["flax_linen"])  # test_peers.py has all
    monkeypatch.setattr(machine, "measure", lambda: machine.Machine("toy", "cpu", 2, 1, 1, {}, {}))
    short = SHORT + PICTURES.get(section, [])
    for words in commands(SECTIONS[section]):
        if words[0] in ("pip", "pytest"):
            continue  # these are in the blocks that .ci/run runs
        assert words[0] == "rnngen", words
        if words[1] in ("train", "classifier"):
            words = words + [f"--config.training.{field}" for field in short]
            if re.search("mnist|:folder", " ".join(words)):
                words.append("--config.training.batch_size=8")
        if any(word.startswith("--iw_samples") for word in words):
            words = [*words, "--num=4"]
        if words[1] == "bench":
            words += ["--rounds=1", "--shapes=8,2,3,4"]
        assert main.run(words) == 0, (words, capsys.readouterr().err)
        for out in [word.removeprefix("--out=") for word in words if word.startswith("--out=")]:
            assert (place / out).stat().st_size > 0


def test_every_verb_has_a_command_and_every_command_is_in_a_section():
    shown = {words[1] for words in commands() if words[0] == "rnngen"}
    assert shown == set(verbs.names())
    assert list(commands()) == [words for text in SECTIONS.values() for words in commands(text)]


def test_ci_runs_the_two_commands_of_the_start():
    script = (ROOT / ".ci" / "run").read_text()
    for name in ("quickstart", "tests"):
        assert f"<!-- ci: {name} -->\n```sh\n" in README
        assert f"block {name}" in script
    installing = [words for words in commands() if words[0] in ("pip", "pytest")]
    assert len(installing) == 3  # pip; pip and pytest: nothing that installs stands elsewhere


def test_the_python_in_the_readme_runs():
    for code in blocks("python"):
        exec(code, {})


def test_every_file_and_picture_that_is_linked_is_there():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).is_file(), target
