"""`rnngen config`: every field of a config with its value, type and meaning, for people to read."""

import dataclasses
import re

import pytest
from tiny_runs import rnngen

from rnngen_jax import experiment, models
from rnngen_jax.commands import config as verb

# Each section that a model's experiments have, and its dataclass.
SECTIONS = {
    f"{name}.{section}": cls
    for name in models.names()
    for section, cls in {
        "model": models.config_class(name),
        **experiment.sections(name),
    }.items()
}


@pytest.fixture
def page(capsys):
    """`page(*arguments)` gives the lines that `rnngen config` prints."""

    def call(*arguments):
        capsys.readouterr()
        assert rnngen("config", *arguments) == 0, capsys.readouterr().err
        return capsys.readouterr().out.splitlines()

    return call


def rows(lines):
    """The rows of a page by "section.field", each on one line with single spaces."""
    found, section, key = {}, "", ""
    for line in lines:
        if begun := re.match(r"config\.(\w+): ", line):
            section = begun[1]
        elif section and (begun := re.match(r"[* ] (\w+) ", line)):
            key = f"{section}.{begun[1]}"
            found[key] = " ".join(line.split())
        elif line.startswith("   ") and key:
            found[key] += " " + " ".join(line.split())
    return found


@pytest.mark.parametrize("section", SECTIONS)
def test_every_field_of_every_section_is_described_in_its_docstring(section):
    cls = SECTIONS[section]
    described = verb.meanings(cls)
    lacking = [f.name for f in dataclasses.fields(cls) if not described.get(f.name)]
    assert not lacking, f"no meaning in the docstring of {cls.__qualname__}: {lacking}"
    unknown = [name for name in described if not hasattr(cls, name)]
    assert not unknown, f"described, but no fields of {cls.__qualname__}: {unknown}"


def test_every_field_is_shown_and_those_that_differ_are_marked(page):
    lines = page("pixel_rnn:binary_mnist", "--config.model.cell=lstm", "--config.training.steps=9")
    settings = experiment.to_dict(experiment.check({"model": {"name": "pixel_rnn"}}))
    found = rows(lines)
    shown = [key for key in found if not key.endswith(".field")]
    assert shown == [f"{name}.{field}" for name, fields in settings.items() for field in fields]
    cell = found["model.cell"]
    assert re.match(r"\* cell lstm str a cell .* Default: gru\.$", cell), cell
    steps = found["training.steps"]
    assert re.match(r"\* steps 9 int total number of training steps\. Default: 2000\.$", steps), (
        steps
    )
    assert re.match(r"batch_size 200 int images scored .*", found["evaluation.batch_size"])
    assert re.match(r'classifier "" str ', found["evaluation.classifier"])
    assert re.match(r"position true bool ", found["model.position"])
    assert "Default" not in found["evaluation.batch_size"]
    marked = sum(row.startswith("* ") for row in found.values())
    assert lines[0] == f"* {marked} of {len(shown)} fields differ from their defaults."


def test_a_page_is_aligned_and_at_most_100_columns_wide(page):
    lines = page("mlp_gan:fashion_mnist", "--config.training.steps=17", "--config.data.shift=2")
    assert max(map(len, lines)) <= verb.WIDTH
    assert not any(line != line.rstrip() for line in lines)
    at = lines[3].index("type")
    for line in lines:
        if re.match(r"[* ] \w+ +\S+ +(int|float|bool|str) ", line):
            assert re.match(r"(int|float|bool|str) +\S", line[at:]), line
    long = lines.index("* validation_fraction  0.16666666666666666")
    assert lines[long + 1].startswith(" " * at + "float  the fraction held out")


def test_a_word_is_a_config_and_so_is_the_flag(page, config):
    assert page(f"{config}:row_rnn-labels") == page(f"--config={config}:row_rnn-labels")
    assert "discriminator" not in "".join(page("vae"))
    assert any(line.startswith("config.discriminator: ") for line in page("mlp_gan"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--config missing; see rnngen config --help."),
        (("vae", "--config=draw"), "--config is given twice; give it once."),
        (("vae", "draw"), "'draw' is not a flag; did you mean --config=draw?"),
        (("pixlrnn",), "--config=pixlrnn: there is no file 'pixlrnn'; did you mean pixel_rnn?"),
        (("vae", "--config.model.features=0"), "config.model.features"),
        (("row_rnn", "--config.model.cell=gruu"), "got 'gruu'; did you mean 'gru'?"),
    ],
)
def test_what_is_no_config_is_refused_in_one_line(arguments, said, capsys):
    assert rnngen("config", *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert len(err.splitlines()) == 1


@dataclasses.dataclass
class Base:
    """A section.

    Attributes:
      first, second: of one
        `meaning`: both.
      third: replaced below.

    Not: a field.
    """

    first: int = 1
    second: int = 2
    third: int = 3


@dataclasses.dataclass
class Derived(Base):
    """Another.

    Attributes:
      third: "a": of its own.

        Still of third.
      fourth: last.
    """

    fourth: float = 1 / 3


def test_meanings_are_of_all_classes_that_a_section_is_made_from():
    assert verb.meanings(Derived) == {
        "first": "of one meaning: both.",
        "second": "of one meaning: both.",
        "third": '"a": of its own. Still of third.',
        "fourth": "last.",
    }
    assert verb.meanings(int) == {}
    last = verb.fields(Derived(fourth=0.5))[-1]
    assert last == ("fourth", "0.5", str(1 / 3), "float", "last.")
    assert last.differs
