"""Command-line flags: the table of those that several verbs share, and groups of them.

A verb lists what it takes in `FLAGS`: flags of this table, `_replace`d where it has another default
or help, and flags of its own.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple

from rnngen_jax.config import require, require_choice

if TYPE_CHECKING:
    from rnngen_jax.hosts.peers import Peers


class Flag(NamedTuple):
    """One command-line flag.

    Attributes:
      name: without dashes.
      kind: "string", "integer", "float", "boolean", "config" for a config file with its overrides,
        or "command" for one of which the verb also gets the flags, as a `Given`.
      help: one line.
      default: the value when it is not given.
      required: whether the verb refuses to start without it.
    """

    name: str
    kind: str
    help: str
    default: Any = None
    required: bool = False


class Given(NamedTuple):
    """A config, and the flags that have made it, for a verb that writes another's command.

    Such a verb's stdout is for what it writes, so notes about the config go to stderr.

    Attributes:
      config: the `ConfigDict`.
      words: --config=NAME and its overrides as they were given, each as one word.
    """

    config: Any
    words: tuple[str, ...]


class Group(NamedTuple):
    """Flags that belong together and reach the verb as one argument.

    Attributes:
      name: the argument's name.
      make: called with the values of the flags by keyword; returns the argument.
      flags: the flags.
    """

    name: str
    make: Callable[..., Any]
    flags: tuple[Flag, ...]


class Which(NamedTuple):
    """Which checkpoint of which run.

    Attributes:
      workdir: the run's folder.
      checkpoint: "best", "latest", a step as a string, or `None` for the best if the run has been
        validated, else the latest.
      seed_index: index of the seed in a run of several seeds, or `None` for all of them.
    """

    workdir: str
    checkpoint: str | None
    seed_index: int | None


class Chosen(NamedTuple):
    """Which images a verb works on.

    Attributes:
      input: an image file, a folder or an npz, or `None` for the images of `split`.
      split: the split to read.
      num: the largest number of images, or `None` for all.
      label: one class for all of them, or `None` for their own.
    """

    input: str | None
    split: str
    num: int | None
    label: str | None

    def check(self) -> None:
        """Raises a `UserError` for a `num` below 1 or an unknown `split`."""
        require(self.num is None or self.num >= 1, "--num", self.num, "≥ 1")
        check_split(self.split)

    @property
    def place(self) -> str:
        """The flag that says where the images come from, for messages."""
        return f"--split={self.split}" if self.input is None else f"--input={self.input}"


class Hosts(NamedTuple):
    """How a verb finds the other processes of its run.

    Attributes:
      hosts: "auto" or "off".
      hosts_timeout: seconds that one may stay away, silent or behind.
    """

    hosts: str
    hosts_timeout: float

    def joined(self, settings: Mapping[str, Any]) -> "AbstractContextManager[Peers]":
        """Joins them, if there are any; see `rnngen_jax.hosts.joined`."""
        from rnngen_jax import hosts

        return hosts.joined(self.hosts, self.hosts_timeout, settings)


def check_split(split: str) -> None:
    """Raises a `UserError` for an unknown split."""
    from rnngen_jax.data.base import SPLITS

    require_choice("--split", split, SPLITS)


CONFIG = Flag(
    "config",
    "config",
    "NAME or FILE.py, with :PRESET if it has presets; --config.SECTION.FIELD=VALUE sets a field",
)
WORKDIR = Flag("workdir", "string", "the run's folder", required=True)
CHECKPOINT = Flag(
    "checkpoint", "string", "best, latest or a step; by default best if validated, else latest"
)
SEED_INDEX = Flag("seed_index", "integer", "which seed of a run of several, counted from 0", 0)
RUN = Group("which", Which, (WORKDIR, CHECKPOINT, SEED_INDEX))

INPUT = Flag(
    "input", "string", "image file, folder of images or FILE.npz; by default images of --split"
)
SPLIT = Flag("split", "string", "train, validation or test", "test")
NUM = Flag("num", "integer", "how many images")
LABEL = Flag("label", "string", "the class, an integer; by default each image's own")
OUT = Flag("out", "string", "the file to write; its extension selects the format")

HOSTS = Group(
    "hosts",
    Hosts,
    (
        Flag(
            "hosts", "string", "auto to join the run's other processes, off to stay alone", "auto"
        ),
        Flag("hosts_timeout", "float", "seconds that one may stay away, silent or behind", 300.0),
    ),
)

SEED = Flag("seed", "integer", "random seed, ≥ 0", 0)
TEMPERATURE = Flag(
    "temperature",
    "float",
    "divides logits and multiplies the scales of mixture components, Gaussians, latents and noise: "
    "below 1 for likelier images, above 1 for more varied ones",
    1.0,
)


def images(num: int | None) -> Group:
    """The flags that choose the images to work on: by default the first `num`, or all of them."""
    number = NUM._replace(help="how many images, from the start; by default all")
    if num is not None:
        number = NUM._replace(help="how many images, from the start", default=num)
    return Group("chosen", Chosen, (INPUT, SPLIT, number, LABEL))


def flags_of(taken: Iterable[Flag | Group]) -> list[Flag]:
    """All flags of a verb in order, including those of its groups."""
    return [flag for one in taken for flag in (one.flags if isinstance(one, Group) else (one,))]


def arguments_of(taken: Iterable[Flag | Group], values: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of a verb's `run`, from the values of its flags by name."""
    return {
        one.name: one.make(**{flag.name: values[flag.name] for flag in one.flags})
        if isinstance(one, Group)
        else values[one.name]
        for one in taken
    }
