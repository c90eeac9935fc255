"""Command-line parsing: finds the verb, parses its flags, prints help, and calls it."""

import collections
import contextlib
import importlib
import pathlib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any, TextIO

from absl import flags as absl_flags

from rnngen_jax import __version__, commands, config_files
from rnngen_jax.commands.flags import Flag, Given, arguments_of, flags_of
from rnngen_jax.config import closest, nearest
from rnngen_jax.errors import UserError

EXAMPLE = """\
example:
  rnngen train --config=pixel_rnn --workdir=runs/digits
  rnngen evaluate --workdir=runs/digits
  rnngen sample --workdir=runs/digits --num=64 --out=digits.png"""

_HELP = ("--help", "-help", "-h", "help")
_CONFIGS = ("config", "command")
_OVERRIDE = re.compile(r"--?(?:no)?config\.(?P<path>[^=]+)")
_KINDS = {
    "string": "a string",
    "integer": "an integer",
    "float": "a number",
    "boolean": "true or false",
}


def run_verb(argv: list[str]) -> int:
    """Finds the verb, parses its flags, and calls it.

    Args:
      argv: the program's name and its arguments.

    Returns:
      The verb's exit code.

    Raises:
      UserError: an unknown verb or an invalid flag; or as the verb raises.
    """
    if len(argv) < 2:
        raise UserError(f"a verb is missing; give one of {', '.join(commands.names())}.")
    name, arguments = argv[1], argv[2:]
    if name == "--version":
        print(f"rnngen {__version__}")
        return 0
    if name in _HELP:
        print(_verb_help(_verb(arguments[0])) if arguments else _general_help())
        return 0
    verb = _verb(name)
    if any(argument in _HELP[:3] for argument in arguments):
        print(_verb_help(verb))
        return 0
    return verb.run(**arguments_of(verb.FLAGS, _parse(verb, name, arguments))) or 0


def _verb(name: str) -> ModuleType:
    """The module of a verb."""
    if name.startswith("-"):
        raise UserError(
            f"{name} stands before the verb; write rnngen VERB {name}. "
            f"Verbs: {', '.join(commands.names())}."
        )
    if name not in commands.names():
        raise UserError(f"{name!r} is not a verb; {_likely_verb(name)}")
    return importlib.import_module(f"{commands.__name__}.{name}")


def _parse(verb: ModuleType, name: str, arguments: list[str]) -> dict[str, Any]:
    """The values of the verb's flags by name."""
    taken = {flag.name: flag for flag in flags_of(verb.FLAGS)}
    positional = getattr(verb, "POSITIONAL", None)
    if positional and arguments and not arguments[0].startswith("-"):
        arguments = [f"--{positional}={arguments[0]}", *arguments[1:]]
    argv = [f"rnngen {name}", *arguments]
    file = _find_config(argv) if "config" in taken else None
    # Not absl's global flags, among which are logging flags that no verb takes.
    values = absl_flags.FlagValues()
    for flag in taken.values():
        _define(flag, values, argv)
    # Flags may follow positional arguments, so that a stray word is reported as one.
    values.set_gnu_getopt(True)
    try:
        rest = values(argv)[1:]
    except absl_flags.UnrecognizedFlagError as error:
        raise UserError(_unknown_flag(error.flagname, name, taken, argv)) from None
    except absl_flags.IllegalFlagValueError as error:
        raise UserError(_illegal_value(str(error), taken)) from None
    except absl_flags.Error as error:
        raise UserError(f"{_one_line(error)}.") from None
    except UserError:
        raise
    except Exception as error:
        if file is None:
            raise
        raise UserError(_config_trouble(file, argv, error)) from None
    if rest:
        raise UserError(_stray_word(rest[0], name, taken))
    missing = [f"--{flag.name}" for flag in taken.values() if _missing(flag, values)]
    if missing:
        raise UserError(f"{', '.join(missing)} missing; see rnngen {name} --help.")
    given = {flag: values[flag].value for flag in taken}
    if file is not None:
        _check_loaded(file, given["config"])
        command = taken["config"].kind == "command"
        _reset_unread(given["config"], argv, sys.stderr if command else sys.stdout)
        if command:
            given["config"] = Given(given["config"], _config_words(arguments, given["config"]))
    return given


def _missing(flag: Flag, values: absl_flags.FlagValues) -> bool:
    """Whether a required flag is missing or empty."""
    return flag.required and (not values[flag.name].present or values[flag.name].value == "")


def _define(flag: Flag, values: absl_flags.FlagValues, argv: list[str]) -> None:
    """Defines one flag."""
    if flag.kind in _CONFIGS:
        from ml_collections import config_flags

        config_flags.DEFINE_config_file(
            flag.name, help_string=flag.help, flag_values=values, sys_argv=argv
        )
        return
    define = {
        "string": absl_flags.DEFINE_string,
        "integer": absl_flags.DEFINE_integer,
        "float": absl_flags.DEFINE_float,
        "boolean": absl_flags.DEFINE_boolean,
    }[flag.kind]
    define(flag.name, flag.default, flag.help, flag_values=values)


def _find_config(argv: list[str]) -> str | None:
    """The existing file that --config names; replaces the name by its path in `argv`.

    `config_flags` reports a missing file only when a field is read, so look first.
    """
    at = None
    for n, argument in enumerate(argv):
        if re.match(r"--?config(=|$)", argument):
            if at is not None:
                raise UserError("--config is given twice; give it once.")
            at = n
        elif _OVERRIDE.match(argument) and at is None:
            raise UserError(f"{argument} sets a field of a config; give --config=FILE.py first.")
    if at is None or argv[at:] in (["--config"], ["-config"]):
        return None  # absl reports the missing value
    if "=" not in argv[at]:
        argv[at : at + 2] = [f"{argv[at]}={argv[at + 1]}"]
    flag, _, given = argv[at].partition("=")
    file, colon, preset = given.partition(":")
    try:
        argv[at] = f"{flag}={config_files.find(file)}{colon}{preset}"
    except UserError as error:
        raise UserError(f"--config={given}: {error}") from None
    return file


def _config_words(arguments: list[str], config: Any) -> tuple[str, ...]:
    """The config's flags as they were given, each as one word, after they have been parsed."""
    words, rest = [], iter(arguments)
    for word in rest:
        if re.match(r"--?(no)?config(\.|=|$)", word) is None:
            continue
        if "=" not in word and not _is_switch(word, config):
            word = f"{word}={next(rest)}"
        words.append(word)
    return tuple(words)


def _is_switch(word: str, config: Any) -> bool:
    """Whether a flag without a value is complete, as that of a boolean field is."""
    found = _OVERRIDE.match(word)
    if found is None:
        return False
    for name in found["path"].split("."):
        config = config[name]
    return isinstance(config, bool)


def _reset_unread(config: Any, argv: list[str], file: TextIO) -> None:
    """Resets fields of the config file that the flags' choices leave unread, and prints which."""
    from rnngen_jax import experiment

    given = {f"config.{found['path']}" for found in filter(None, map(_OVERRIDE.match, argv))}
    for line in experiment.reset_unread(config, given):
        print(line, file=file)


def _without_overrides(argv: list[str]) -> Any:
    """The config as its file returns it; raises what the file raises."""
    from ml_collections import config_flags

    plain = [argument for argument in argv if not _OVERRIDE.match(argument)]
    values = absl_flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=plain)
    values(plain, known_only=True)
    return values["config"].value


def _config_trouble(file: str, argv: list[str], error: Exception) -> str:
    """The message for a failure of `config_flags`: an unknown field, or the file itself."""
    from ml_collections import ConfigDict

    try:
        config = _without_overrides(argv)
    except Exception as fault:
        return _raised(file, fault)
    _check_loaded(file, config)
    for found in filter(None, map(_OVERRIDE.match, argv)):
        node, path = config, "config"
        for field in found["path"].split("."):
            if not isinstance(node, ConfigDict):
                return f"--{path}.{field}: {path} is a value; it has no fields."
            if field not in node:
                given, keys = f"config.{found['path']}", ", ".join(sorted(node))
                likely = _likely_flags(given, _fields(config.to_dict()))
                return f"--{given} is not a field; {_or_allowed(likely, f'{keys} in {path}')}"
            node, path = node[field], f"{path}.{field}"
    return _raised(file, error)


def _raised(file: str, error: Exception) -> str:
    """The message for a config file that raises."""
    return f"--config={file} raised {type(error).__name__}: {_one_line(error)}."


def _check_loaded(file: str, config: object) -> None:
    """Raises a `UserError` unless `get_config` returned a `ConfigDict`."""
    from ml_collections import ConfigDict

    if isinstance(config, ConfigDict):
        return
    try:
        # For a file that raised an `OSError`, `config_flags` returns an object that raises it too.
        getattr(config, "model", None)
    except OSError as error:
        raise UserError(f"--config={file} failed: {_one_line(error.__cause__ or error)}.") from None
    raise UserError(
        f"--config={file}: get_config must return a ConfigDict, such as "
        f"experiment.default(MODEL), got {type(config).__name__}."
    )


def _unknown_flag(given: str, name: str, taken: dict[str, Flag], argv: list[str]) -> str:
    """The message for a flag that the verb does not take."""
    flags_taken = [f"--{flag}" for flag in taken]
    allowed, fields = ", ".join(flags_taken), []
    if given.split(".", 1)[0] in ("config", "noconfig"):
        why = ", which reads WORKDIR/config.json" if "workdir" in taken else ""
        return f"--{given} is not a flag of {name}{why}; allowed: {allowed}."
    if "config" in taken:
        allowed += ", --config.SECTION.FIELD"
        with contextlib.suppress(Exception):  # a config that does not load is reported elsewhere
            fields = _fields(_without_overrides(argv).to_dict())
    likely = _likely_flags(given, [*flags_taken, *fields])
    if not any(flag.endswith(f".{given}") for flag in likely):
        for other in commands.names():
            if given in {flag.name for flag in flags_of(_verb(other).FLAGS)}:
                return f"--{given} is a flag of {other}, not of {name}; allowed: {allowed}."
    return f"--{given} is not a flag of {name}; {_or_allowed(likely, allowed)}"


def _fields(values: Mapping[str, Any], at: str = "--config") -> list[str]:
    """The flag of every field of a config: "--config.model.cell" and so on."""
    found = []
    for name, value in values.items():
        flag = f"{at}.{name}"
        found += _fields(value, flag) if isinstance(value, Mapping) else [flag]
    return found


def _likely_flags(given: str, allowed: Iterable[str]) -> list[str]:
    """The flags that an unknown flag most likely stands for.

    Those whose last part is closest to its own, in any section; of these, those in the section that
    it names, if there are any. A section stands for its field `name`, as in --optimizer=sgd.

    Args:
      given: the unknown flag without dashes: "lr", or "config.training.lr".
      allowed: "--workdir", "--config.optimizer.learning_rate" and so on.
    """
    named = collections.defaultdict(list)
    for flag in allowed:
        *_, section, name = ["", *flag.removeprefix("--").split(".")]
        for called in (name, section) if name == "name" else (name,):
            named[called].append((section, flag))
    *above, name = given.split(".")
    likely = named.get(closest(name, named), [])
    own = closest(above[-1], {section for section, _ in likely}) if above else None
    return [flag for section, flag in likely if own in (None, section)]


def _or_allowed(likely: Sequence[str], allowed: str) -> str:
    """Ends an error message with the likely flags, or else with those that are allowed."""
    return f"did you mean {' or '.join(likely)}?" if likely else f"allowed: {allowed}."


def _likely_verb(given: str) -> str:
    """Ends the message for an unknown verb with the closest verb, or the config that it names."""
    file, colon, preset = given.partition(":")
    verbs, configs = commands.names(), config_files.names()
    close = closest(pathlib.PurePath(file).stem, {*verbs, *configs})
    if close in verbs or close is None:
        return nearest(given, verbs)
    return f"did you mean rnngen train --config={close}{colon}{preset}?"


def _stray_word(word: str, name: str, taken: Mapping[str, Flag]) -> str:
    """The message for an argument that is not a flag."""
    hint = f"rnngen {name} takes only --flag=value."
    if word.partition("=")[0] in taken or word.startswith("config."):
        hint = f"did you mean --{word}?"
    elif "config" in taken and pathlib.PurePath(word.split(":")[0]).stem in config_files.names():
        hint = f"did you mean --config={word}?"
    elif "workdir" in taken and pathlib.Path(word).is_dir():
        hint = f"did you mean --workdir={word}?"
    return f"{word!r} is not a flag; {hint}"


def _illegal_value(message: str, taken: dict[str, Flag]) -> str:
    """The message for a value of the wrong type; absl's own shows Python's exception."""
    if "Error whilst parsing config file" in message:  # ends in a traceback
        file = message.removeprefix("flag --").split(": ", 1)[0]
        return f"--{file} raised {_one_line(message.strip().splitlines()[-1])}."
    found = re.match(r"flag --([\w.]+)=(.*?): (.*)", message, re.DOTALL)
    if found is None:
        return f"{_one_line(message)}."
    name, given, reason = found.groups()
    if name in taken:
        flag = taken[name]
        return f"--{name} must be {_KINDS[flag.kind]}, got {given!r}: {flag.help}."
    if "ConfigDict" in reason:
        return f"--{name}={given} sets a whole section; set its fields with --{name}.FIELD=VALUE."
    if "boolean" in reason:
        allowed = "true or false"
    else:
        allowed = "an integer" if "int()" in reason else "a number"
    return f"--{name} must be {allowed}, got {given!r}."


def _one_line(message: object) -> str:
    """A message on one line, without its full stop."""
    return " ".join(str(message).split()).removesuffix(".")


def _general_help() -> str:
    """What `rnngen --help` prints."""
    lines = ["usage: rnngen VERB --flag=value ...", "", "verbs:"]
    verbs = {name: _verb(name) for name in commands.names()}
    width = max(map(len, verbs))
    for name, verb in verbs.items():
        lines.append(f"  {name:<{width}}  {(verb.__doc__ or '').splitlines()[0]}")
        taken = " ".join(f"--{flag.name}" for flag in flags_of(verb.FLAGS))
        lines.append(f"  {'':<{width}}  {taken}")
    lines += ["", "rnngen VERB --help explains a verb and its flags.", "", EXAMPLE]
    return "\n".join(lines)


def _verb_help(verb: ModuleType) -> str:
    """What `rnngen VERB --help` prints."""
    name = verb.__name__.rsplit(".", 1)[-1]
    word = f" {verb.POSITIONAL.upper()}" if hasattr(verb, "POSITIONAL") else ""
    lines = [
        f"usage: rnngen {name}{word} --flag=value ...",
        "",
        (verb.__doc__ or "").strip(),
        "",
        "flags:",
    ]
    taken = flags_of(verb.FLAGS)
    width = max(len(flag.name) for flag in taken)
    for flag in taken:
        if flag.required:
            note = " (required)"
        else:
            plain = flag.default is None or flag.kind == "boolean"  # those are off by default
            note = "" if plain else f" (default {flag.default})"
        lines.append(f"  --{flag.name:<{width}}  {flag.help}{note}")
    if any(flag.kind in _CONFIGS for flag in taken):
        lines += ["", f"configs that ship: {', '.join(config_files.names())}"]
    return "\n".join(lines)
