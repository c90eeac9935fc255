"""What the shell scripts share. User's values get into them through `shlex.quote` alone."""

import shlex
import string
from collections.abc import Iterable

from rnngen_jax.launch.job import Job

# Quotes a text for whichever shell a host's users have. It may have line breaks.
QUOTE = r"""quote() { printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"; }"""


class Script(string.Template):
    """A shell script with `@@NAME` for its values, since shells use `$` and braces themselves."""

    delimiter = "@@"


def remote(job: Job, *lines: str, last: str = "exec @@train") -> str:
    """The script that every host runs.

    Args:
      job: its setup comes first.
      *lines: what comes between, such as variables.
      last: what trains; `@@train` is the command.
    """
    setup = [] if job.setup is None else [f"eval {shlex.quote(job.setup)} </dev/null"]
    train = Script(last).substitute(train=shlex.join(job.command))
    return "\n".join(["set -euo pipefail", *setup, *lines, train])


def array(values: Iterable[str]) -> str:
    """The values as the inside of a bash array."""
    return " ".join(map(shlex.quote, values))
