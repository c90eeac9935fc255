"""What to run and where, and the checks of it before anything is paid for."""

import dataclasses
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from rnngen_jax.config import require, require_choice
from rnngen_jax.errors import UserError

TIERS = ("on-demand", "spot")

_HOST = "[A-Za-z0-9_][-A-Za-z0-9_.@]*"
# What each field must look like, and how a message says so. None may begin with a dash, which the
# commands that take it would read as a flag.
_FORMS = {
    "name": (r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", "1 to 40 of a-z, 0-9 and -, a letter first"),
    "zone": (r"[a-z0-9][-a-z0-9]*", "a zone's name"),
    "project": (r"[a-z][-a-z0-9.:]*", "a project's ID"),
    "runtime": (r"[a-z0-9][-a-z0-9.]*", "the name of a TPU's software"),
    "service_account": (r"[A-Za-z0-9][-A-Za-z0-9.@_]*", "an account's name"),
    "image": (r"[a-z0-9][-A-Za-z0-9._/:@]*", "an image's name, such as HOST/PROJECT/NAME:TAG"),
    "partition": (r"[A-Za-z0-9_][-A-Za-z0-9_.,]*", "a partition's name"),
    "time": (r"[0-9]+(-[0-9]+)?(:[0-9]+){0,2}", "as sbatch takes it, such as 12:00:00"),
    "hosts": (rf"{_HOST}(,{_HOST})*", "names with commas between"),
}


@dataclass(frozen=True)
class Job:
    """A training run on machines elsewhere. Fields that are not given are `None`.

    Attributes:
      words: the config and its overrides as flags of `train`, as they were given.
      workdir: the run's folder, as the machines reach it.
      name: of the resource that is created.
      topology: a TPU slice, such as "v5e:4x4".
      zone: where the slice is.
      project: who pays.
      tier: "spot" or "on-demand".
      runtime: the software of the slice's hosts.
      service_account: as whom the hosts read and write.
      image: a container image with rnngen in it.
      nodes: how many.
      gpus: of each node.
      cpus: of each node.
      partition: of the cluster.
      time: limit of one allocation.
      hosts: names with commas between, the first of which the others join.
      setup: a command for each host, before training.
    """

    words: tuple[str, ...]
    workdir: str
    name: str | None = None
    topology: str | None = None
    zone: str | None = None
    project: str | None = None
    tier: str | None = None
    runtime: str | None = None
    service_account: str | None = None
    image: str | None = None
    nodes: int | None = None
    gpus: int | None = None
    cpus: int | None = None
    partition: str | None = None
    time: str | None = None
    hosts: str | None = None
    setup: str | None = None

    @property
    def command(self) -> list[str]:
        """The words of the command that each host runs."""
        return ["rnngen", "train", *self.words, f"--workdir={self.workdir}"]

    @property
    def spot(self) -> bool:
        """Whether the machines may be taken away at any time."""
        return self.tier == "spot"


def check(job: Job, target: str, needs: Mapping[str, str], takes: Collection[str]) -> None:
    """Checks the fields of a job for a target.

    Args:
      job: the job.
      target: its name in messages.
      needs: the fields that must be given, with what to give.
      takes: the fields that may be given.

    Raises:
      UserError: a field that is missing, not used by the target, or malformed.
    """
    given = {name: value for name, value in dataclasses.asdict(job).items() if value is not None}
    del given["words"]
    own = ["workdir", *needs, *takes]
    for name in given:
        if name not in own:
            allowed = ", ".join(f"--{each}" for each in own)
            raise UserError(f"--{name} does not apply to --to={target}; it takes {allowed}.")
    for name, what in needs.items():
        if name not in given:
            raise UserError(f"--to={target} needs --{name}: {what}.")
    for word in job.words:
        _require_printable(word.partition("=")[0], word)
    for name, value in given.items():
        if isinstance(value, int):
            require(value >= 1, f"--{name}", value, "≥ 1")
            continue
        _require_printable(f"--{name}", value)
        if name in _FORMS:
            form, allowed = _FORMS[name]
            require(re.fullmatch(form, value) is not None, f"--{name}", value, allowed)
    if job.tier is not None:
        require_choice("--tier", job.tier, TIERS)


def require_bucket(job: Job, target: str) -> None:
    """Raises a `UserError` unless the workdir outlives the machines of a cloud."""
    allowed = f"on a bucket for --to={target}, such as gs://BUCKET/runs/digits"
    require(re.match(r"gs://[^/]+/.", job.workdir) is not None, "--workdir", job.workdir, allowed)


def _require_printable(where: str, value: str) -> None:
    """Refuses line breaks and other control characters, which no quotes make safe everywhere."""
    require(value.isprintable(), where, value, "on one line, without control characters")
