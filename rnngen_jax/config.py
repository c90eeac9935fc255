"""Config sections as frozen dataclasses; unknown fields and values of a wrong type are errors."""

import dataclasses
import difflib
import inspect
import math
import sys
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from rnngen_jax.errors import UserError

Section = TypeVar("Section")


@dataclasses.dataclass(eq=False)
class UnreadError(UserError):
    """A field is set that has no effect with the section's other values.

    Attributes:
      field: its path, such as "config.optimizer.weight_decay".
      choices: the paths of the fields whose values make it ineffective.
      default: its default value.
      effect: the first part of the message: that the field has no effect, and why.
      remedy: the last part of the message.
    """

    field: str
    choices: frozenset[str]
    default: Any
    effect: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.effect}; leave it at {self.default!r}{self.remedy}."


def closest(given: str, allowed: Iterable[str]) -> str | None:
    """The allowed name that `given` misspells or abbreviates, or `None`.

    An abbreviation consists of prefixes of the name's first words: "lr" or "learnrate" for
    learning_rate, "ema" for ema_decay. Among several names, the shortest is returned.
    """
    given, allowed = given.lower(), sorted(allowed)
    slips = difflib.get_close_matches(given, allowed, n=1, cutoff=0.7)
    slips += [name for name in allowed if sorted(name) == sorted(given)]  # "gur" of gru
    if slips:
        return slips[0]
    if len(given) < 2:
        return None
    short = given.replace("_", "")
    return min((n for n in allowed if _abbreviates(short, n.split("_"))), key=len, default=None)


def _abbreviates(short: str, words: list[str]) -> bool:
    """Whether `short` consists of nonempty prefixes of the first words."""
    if not short or not words:
        return not short
    return any(
        words[0].startswith(short[:n]) and _abbreviates(short[n:], words[1:])
        for n in range(1, len(short) + 1)
    )


def nearest(given: str, allowed: Iterable[str]) -> str:
    """The end of an error message: the `closest` allowed name, if any, and all allowed names."""
    allowed = sorted(allowed)
    close, names = closest(given, allowed), ", ".join(allowed) or "none"
    return f"allowed: {names}." if close is None else f"did you mean {close!r}? Allowed: {names}."


def from_mapping(
    section: type[Section], values: Mapping[str, Any], where: str, of: str = ""
) -> Section:
    """Builds the frozen dataclass `section` from a mapping, checking each field.

    Args:
      section: a frozen dataclass whose fields have plain types: int, float, bool, str.
      values: field values by name; missing fields keep their defaults.
      where: the section's path in messages, such as "config.model".
      of: the section's owner in messages, such as " of vae".

    Raises:
      UserError: a name that is not a field (the message gives the nearest), or a value of the wrong
        type. The section's own `__post_init__` may also raise it, for values out of range.
    """
    hints = typing.get_type_hints(section)
    names = [field.name for field in dataclasses.fields(section)]  # type: ignore[arg-type]
    checked = {}
    for name, value in values.items():
        if name not in names:
            raise UserError(f"{where}.{name} is not a field{of}; {nearest(name, names)}")
        checked[name] = _typed(value, hints[name], f"{where}.{name}")
    return section(**checked)


def to_mapping(section: Any) -> dict[str, Any]:
    """The fields of a section by name, from which `from_mapping` rebuilds it."""
    return dataclasses.asdict(section)


def require(condition: bool, where: str, given: Any, allowed: str) -> None:
    """Raises a `UserError` such as "config.model.features must be ≥ 1, got 0." unless `condition`.

    Args:
      condition: whether `given` is valid.
      where: the field or flag.
      given: its value.
      allowed: follows "must be": "≥ 1", "in [0, 1)", "a multiple of 8".
    """
    if not condition:
        raise UserError(f"{where} must be {allowed}, got {given!r}.")


def require_at_least(section: Any, path: str, least: float, *names: str) -> None:
    """Raises a `UserError` unless each of these fields of a section is ≥ `least`.

    Args:
      section: the section.
      path: its path, such as "config.model".
      least: the least that is allowed.
      names: of the fields.
    """
    for name in names:
        value = getattr(section, name)
        require(value >= least, f"{path}.{name}", value, f"≥ {least}")


def require_choice(where: str, given: str, allowed: Iterable[str]) -> None:
    """Raises a `UserError` that names the nearest choice unless `given` is one of `allowed`."""
    allowed = sorted(allowed)
    if given in allowed:
        return
    close = closest(str(given), allowed)
    hint = "." if close is None else f"; did you mean {close!r}?"
    raise UserError(f"{where} must be one of {', '.join(allowed)}, got {given!r}{hint}")


def refuse_unread(
    section: Any, where: str, name: str, choices: Sequence[str], why: str = "", remedy: str = ""
) -> None:
    """Raises an `UnreadError` if a field that has no effect is not at its default.

    Args:
      section: a dataclass whose field `name` is not read.
      where: the section's path, such as "config.model".
      name: the field.
      choices: the fields whose values make it ineffective.
      why: follows these fields in the message.
      remedy: follows the default value in the message.
    """
    default = type(section).__dataclass_fields__[name].default
    given = getattr(section, name)
    if given == default:
        return
    chosen = " and ".join(f"{choice}={getattr(section, choice)!r}" for choice in choices)
    raise UnreadError(
        f"{where}.{name}",
        frozenset(f"{where}.{choice}" for choice in choices),
        default,
        f"{where}.{name}={given!r} has no effect with {chosen}{why}",
        remedy,
    )


def options(function: Callable[..., Any], name: str, text: str) -> dict[str, Any]:
    """Parses `"a=1,b=x"` as keyword arguments of `function`, each with the type of its default.

    Args:
      function: its keyword-only parameters, or the fields of a dataclass, are the options, of plain
        types (int, float, bool, str).
      name: its name in messages, such as "cell 'lstm'".
      text: the options, comma-separated; may be empty.

    Raises:
      UserError: an option that the function does not have, or a value of the wrong type.
    """
    defaults = {
        parameter.name: parameter.default
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY or dataclasses.is_dataclass(function)
    }
    values = {}
    for item in filter(None, text.split(",")):
        option, equals, value = item.partition("=")
        if option not in defaults or not equals:
            raise UserError(f"{name} has no option {item!r}; {nearest(option, defaults)}")
        values[option] = _parsed(value, type(defaults[option]), f"{name}: {option}")
    return values


def _parsed(text: str, kind: type, where: str) -> Any:
    if kind is bool:
        if text in ("True", "False"):
            return text == "True"
        raise UserError(f"{where} must be True or False, got {text!r}.")
    try:
        return kind(text)
    except ValueError:
        raise UserError(f"{where} must be of type {kind.__name__}, got {text!r}.") from None


def _typed(value: Any, hint: type, where: str) -> Any:
    """Checks that `value` has the plain type `hint`; only int is converted, to float."""
    if hint is float and type(value) is int:
        value = float(value) if abs(value) <= sys.float_info.max else math.inf
    if type(value) is not hint:
        raise UserError(
            f"{where} must be of type {hint.__name__}, "
            f"got {value!r} of type {type(value).__name__}."
        )
    if hint is int and not -(2**31) <= value < 2**31:  # JAX's own integers
        raise UserError(f"{where} must fit in 32 bits (at most {2**31 - 1}).")
    if hint is float and not math.isfinite(value):
        raise UserError(f"{where} must be finite, got {value!r}.")
    return value
