"""Runs over several processes: finding one's place among them, meeting, and noticing a loss."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from rnngen_jax.config import require, require_choice
from rnngen_jax.errors import RunError, UserError
from rnngen_jax.hosts.link import Link
from rnngen_jax.hosts.peers import ALONE, Peers
from rnngen_jax.hosts.place import place

CHOICES = ("auto", "off")


@contextlib.contextmanager
def joined(hosts: str, timeout: float, settings: Mapping[str, Any]) -> Iterator[Peers]:
    """Joins the processes of a run, and starts `jax.distributed` among them.

    To be entered before JAX starts its devices. An error inside is told to the others, who end.

    Args:
      hosts: "auto" to look at the environment, see `place`; "off" to stay alone.
      timeout: seconds that a process may stay away, silent or behind, ≥ 1.
      settings: nested JSON values of which all processes must have the same.

    Yields:
      The others; `ALONE` if there are none.

    Raises:
      UserError: the environment is not valid, or the address cannot be used.
      LostError: a process has not come.
      RunError: the processes were not started alike.
    """
    require_choice("--hosts", hosts, CHOICES)
    require(timeout >= 1, "--hosts_timeout", timeout, "≥ 1 second")
    found = place() if hosts == "auto" else None
    if found is None:
        yield ALONE
        return
    link = Link(found, dict(_flat(settings)), timeout)
    try:
        import jax

        # JAX's own way with a process that is gone is to end all others with a dump of their
        # stacks; the link names it, and knows of it sooner.
        jax.config.update("jax_enable_recoverability", True)
        silence = max(100, int(2 * timeout))
        try:
            jax.distributed.initialize(
                found.address,
                num_processes=found.count,
                process_id=found.index,
                local_device_ids=found.device,
                cluster_detection_method="deactivate",
                initialization_timeout=int(timeout),
                heartbeat_timeout_seconds=silence,
                shutdown_timeout_seconds=int(timeout),
                coordinator_bind_address=f"127.0.0.1:{link.service}" if link.service else None,
            )
        except (RuntimeError, ValueError) as error:
            line = str(error).splitlines()[0]
            raise RunError(
                f"the processes at {found.address} could not be joined: {line}"
            ) from None
        yield Peers(link.mark, link.agree, link.explained, link.when_over)
    except BaseException as error:
        known = isinstance(error, UserError | RunError)
        why = " ".join(str(error).split()) if known else f"{type(error).__name__}: {error}"
        _leave(link, found.index, why)
        raise
    _leave(link, found.index, "")


def _leave(link: Link, index: int, why: str) -> None:
    """Leaves JAX's service, which is inside the first process, so that one leaves last."""
    import jax

    if index == 0:
        link.leave(why)
        link.wait_for_others()
        jax.distributed.shutdown()
    else:
        link.leave(why, first=jax.distributed.shutdown)


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Nested values by their dotted names."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value
