"""Show every field of a config: its value, type and meaning.

  rnngen config row_lstm:binary_mnist
  rnngen config configs/mlp_gan.py --config.model.loss=hinge
  rnngen config --config=my_config.py:my_preset

--config.SECTION.FIELD=VALUE sets a field, as in train; nothing is trained or written. A star marks
fields that differ from their defaults; the default then follows the meaning.
"""

import dataclasses
import inspect
import re
import textwrap
import typing
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from rnngen_jax.commands.flags import CONFIG

if TYPE_CHECKING:
    from rnngen_jax.experiment import Experiment

FLAGS = (CONFIG._replace(required=True),)
POSITIONAL = "config"  # the flag that a first argument without dashes sets

WIDTH = 100  # columns of the page
MOST_VALUE = 18  # columns of the values; a longer value pushes the rest to the next line
TITLES = ("field", "value", "type", "meaning")

_NAMES = re.compile(r"  (?P<names>\w+(?:, \w+)*): (?P<text>.*)")


class Field(NamedTuple):
    """One row of the page.

    Attributes:
      name: the field's name within its section.
      value, default: as a flag would set them; a default of `None` means that there is none.
      kind: name of the type: "int", "float", "bool" or "str".
      meaning: from the docstring of the section's dataclass.
    """

    name: str
    value: str
    default: str | None
    kind: str
    meaning: str

    @property
    def differs(self) -> bool:
        """Whether the value is not the default."""
        return self.default is not None and self.value != self.default


def run(config: Any) -> None:
    """Prints the fields.

    Args:
      config: the `ConfigDict` of --config.

    Raises:
      UserError: an invalid config.
    """
    from rnngen_jax import experiment

    print("\n".join(_page(experiment.check(config))))


def meanings(section: type) -> dict[str, str]:
    """The meaning of each field of a dataclass by name, one line each.

    Read from the section Attributes of its docstring and of its base classes' docstrings, as
    `NAME: text` or `NAME, NAME: text`.

    Args:
      section: the dataclass.
    """
    found: dict[str, str] = {}
    for cls in reversed(section.__mro__):
        names: list[str] = []
        for line in _attributes(cls):
            begun = _NAMES.fullmatch(line)
            if begun is not None:
                names = begun["names"].split(", ")
                found |= dict.fromkeys(names, "")
            text = line if begun is None else begun["text"]
            found |= {name: f"{found[name]} {text.strip()}".strip() for name in names}
    return {name: text.replace("`", "") for name, text in found.items()}


def _attributes(cls: type) -> Iterator[str]:
    """The lines of a docstring's section Attributes, indented by two spaces or more."""
    lines = iter(inspect.cleandoc(cls.__doc__ or "").splitlines())
    for line in lines:
        if line == "Attributes:":
            break
    for line in lines:
        if line and not line.startswith("  "):
            return
        yield line


def fields(section: Any) -> list[Field]:
    """The rows of a section.

    Args:
      section: an instance of its dataclass.
    """
    hints, texts = typing.get_type_hints(type(section)), meanings(type(section))
    return [
        Field(
            field.name,
            _text(getattr(section, field.name)),
            _text(field.default),
            hints[field.name].__name__,
            texts.get(field.name, ""),
        )
        for field in dataclasses.fields(section)
    ]


def _text(value: Any) -> str:
    """A value as a flag sets it, except that quotes make an empty string visible."""
    if isinstance(value, bool):
        return str(value).lower()
    return '""' if value == "" else str(value)


def _sections(settings: "Experiment") -> dict[str, tuple[str, list[Field]]]:
    """The summary and rows of each section by name."""
    from rnngen_jax import experiment

    model = type(settings.model)
    about, _, _ = inspect.cleandoc(inspect.getmodule(model).__doc__ or "").partition("\n")
    texts = meanings(experiment.Experiment)
    name = Field("name", settings.name, None, "str", texts["name"])
    found = {"model": (about, [name, *fields(settings.model)])}
    folder = experiment.borrows(settings.name)
    if folder:
        row = Field(folder, _text(getattr(settings, folder)), '""', "str", texts[folder])
        found = {"": ("another run that this one is built on.", [row]), **found}
    for name, section in settings.sections.items():
        about, _, _ = inspect.cleandoc(type(section).__doc__ or "").partition("\n")
        found[name] = (about.replace("`", ""), fields(section))
    return found


def _page(settings: "Experiment") -> Iterator[str]:
    """The lines to print."""
    sections = _sections(settings)
    rows = [row for _, listed in sections.values() for row in listed]
    changed = sum(row.differs for row in rows)
    yield f"* {changed} of {len(rows)} fields differ from their defaults."
    widths = (
        max(len(row.name) for row in rows),
        max(len(row.value) for row in rows if len(row.value) <= MOST_VALUE),
        max(len(row.kind) for row in rows),
    )
    for section, (about, listed) in sections.items():
        yield ""
        where = f"config.{section}" if section else "config"
        yield from textwrap.wrap(f"{where}: {about}", WIDTH, subsequent_indent="  ")
        yield from _row("  ", TITLES, widths)
        for row in listed:
            mark, default = ("* ", f" Default: {row.default}.") if row.differs else ("  ", "")
            meaning = row.meaning if not default else row.meaning.rstrip(".") + "." + default
            yield from _row(mark, (row.name, row.value, row.kind, meaning), widths)


def _row(mark: str, cells: tuple[str, str, str, str], widths: tuple[int, int, int]) -> list[str]:
    """The lines of a row: the first three cells in columns, the last one wrapped beside them."""
    name, value, kind, meaning = cells
    first, second, third = widths
    start = f"{mark}{name:<{first}}  {value:<{second}}  "
    margin = len(mark) + first + 2 + second + 2 + third + 2
    wrapped = textwrap.wrap(meaning, WIDTH - margin, break_on_hyphens=False) or [""]
    lines = [f"{kind:<{third}}  {wrapped[0]}"]
    lines += [" " * margin + line for line in wrapped[1:]]
    if len(value) > second:
        lines[0] = " " * (len(mark) + first + second + 4) + lines[0]
        return [start.rstrip(), *(line.rstrip() for line in lines)]
    lines[0] = start + lines[0]
    return [line.rstrip() for line in lines]
