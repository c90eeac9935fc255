"""Which process of how many this one is, from what the cluster tells it in its environment."""

import os
import pathlib
import re
import urllib.request
from collections.abc import Callable, Mapping
from typing import NamedTuple

from rnngen_jax.config import require
from rnngen_jax.errors import UserError

PORT = 8476  # of the coordinator on TPU hosts; 8482, JAX's own, is behind some clouds' firewalls
VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_METADATA_SECONDS = 5


class Place(NamedTuple):
    """A process among those of a run.

    Attributes:
      address: HOST:PORT of the first process, where all of them meet.
      count: number of processes, ≥ 2.
      index: number of this one, in [0, count).
      device: the only local device that it uses, of those of its host; `None` for all of them.
    """

    address: str
    count: int
    index: int
    device: int | None = None


class _Known(NamedTuple):
    """What an environment says of a place; `None` for what it leaves open."""

    address: str | None
    count: int | None
    index: int | None
    device: int | None = None


def has_tpu() -> bool:
    """Whether the machine has a TPU, by its device files."""
    devices = pathlib.Path("/dev")
    return any(devices.glob("accel[0-9]*")) or any(devices.glob("vfio/[0-9]*"))


def place(
    environment: Mapping[str, str] | None = None, has_tpu: Callable[[], bool] = has_tpu
) -> Place | None:
    """Finds this process's place: by JAX's three variables, else under Slurm or on a TPU.

    What the three variables leave open, Slurm or the TPU fill in. A job step of Slurm counts, that
    is a process which srun has started, not an allocation; so does a TPU of several hosts.

    Args:
      environment: the environment variables, by default the process's own.
      has_tpu: whether there is a TPU, whose cloud may then be asked.

    Returns:
      The place, or `None` for a process that is alone.

    Raises:
      UserError: one of the three variables is not valid, or lacks the others.
    """
    environment = os.environ if environment is None else environment
    given = {name: environment.get(name) or None for name in VARIABLES}
    around = _slurm(environment) or _tpu(environment, has_tpu)
    if not any(given.values()):
        if around is None or None in around[:3] or around.count == 1:
            return None
        return Place(*around)  # type: ignore[arg-type]
    for name in VARIABLES[1:]:
        value = given[name]
        require(value is None or re.fullmatch("[0-9]{1,9}", value), name, value, "an integer ≥ 0")
    address, count, index = (given[name] for name in VARIABLES)
    if address is not None:
        fits = re.fullmatch(r"[^:\s]+:[0-9]{1,5}|\[[0-9a-fA-F:.]+\]:[0-9]{1,5}", address)
        require(fits, VARIABLES[0], address, "HOST:PORT")
    around = around or _Known(None, None, None)
    known = _Known(
        address or around.address,
        around.count if count is None else int(count),
        around.index if index is None else int(index),
        around.device,
    )
    missing = [name for name, value in zip(VARIABLES, known, strict=False) if value is None]
    if known.count == 1:
        return None
    if known.address is None or known.count is None or known.index is None:
        there = [name for name in VARIABLES if given[name] is not None]
        raise UserError(
            f"{_are(there)} set, but {_are(missing)} not; "
            "set all three, or none, or give --hosts=off."
        )
    require(known.count >= 1, VARIABLES[1], known.count, "≥ 1")
    fits = known.index < known.count
    require(fits, VARIABLES[2], known.index, f"< {VARIABLES[1]}, which is {known.count}")
    return Place(known.address, known.count, known.index, known.device)


def _are(names: list[str]) -> str:
    """One or two names with their verb."""
    return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'}"


def _slurm(environment: Mapping[str, str]) -> _Known | None:
    """The place in a job step of several tasks; `None` outside one.

    An allocation alone sets some of these variables, too, but no step has been started in it.
    """
    names = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID")
    job, nodes, tasks, index = (environment.get(name, "") for name in names)
    if not nodes or not all(value.isdecimal() for value in (job, tasks, index)):
        return None
    if int(tasks) < 2:
        return None
    # Several jobs may share a node; this is JAX's own choice of a port for each.
    address = f"{_first_node(nodes)}:{65535 - 2**12 + 1 + int(job) % 2**12}"
    tasks_per_node = re.match("[0-9]+", environment.get("SLURM_STEP_TASKS_PER_NODE", "1"))
    shared = tasks_per_node is not None and int(tasks_per_node[0]) > 1
    own = environment.get("SLURM_LOCALID", "")
    device = int(own) if shared and own.isdecimal() else None
    return _Known(address, int(tasks), int(index), device)


def _first_node(nodes: str) -> str:
    """The first name of a list such as "rack[1-2]n[01-16,20],login"."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first[0] if first else nodes)


def _tpu(environment: Mapping[str, str], has_tpu: Callable[[], bool]) -> _Known | None:
    """The place among the hosts of a TPU, in its containers' variables or by its cloud's word.

    Several slices that work as one are counted through.
    """
    platforms = environment.get("JAX_PLATFORMS", "")
    if (platforms and "tpu" not in platforms) or not has_tpu():
        return None
    workers = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES")
    number = environment.get("TPU_WORKER_ID")
    slices: Mapping[str, str] = environment
    if not workers or number is None:
        if "TPU_SKIP_MDS_QUERY" in environment:
            return None
        asked = environment.get("GCE_METADATA_IP", "metadata.google.internal")
        workers = _metadata(asked, "worker-network-endpoints")
        number = _metadata(asked, "agent-worker-number")
        slices = {**_pairs(_metadata(asked, "tpu-env") or ""), **environment}
    if not workers or number is None or not number.strip().isdecimal():
        return None
    # NAME, or NAME:ID:ADDRESS, or ADDRESS:PORT
    parts = [worker.strip().split(":") for worker in workers.split(",")]
    hosts = [part[2] if len(part) == 3 else part[0] for part in parts]
    of_slices, of_this = slices.get("MEGASCALE_NUM_SLICES"), slices.get("MEGASCALE_SLICE_ID")
    first = slices.get("MEGASCALE_COORDINATOR_ADDRESS") or hosts[0]
    count = len(hosts) * int(of_slices or 1)
    index = int(number) + len(hosts) * int(of_this or 0)
    port = environment.get("JAX_COORDINATOR_PORT", PORT)
    return _Known(f"{first.split(':')[0]}:{port}", count, index)


def _metadata(server: str, name: str) -> str | None:
    """An attribute of this virtual machine by its cloud's metadata server; `None` without one."""
    url = f"http://{server}/computeMetadata/v1/instance/attributes/{name}"
    request = urllib.request.Request(url, headers={"Metadata-Flavor": "Google"})
    try:
        with urllib.request.urlopen(request, timeout=_METADATA_SECONDS) as answer:
            return answer.read(2**20).decode()
    except (OSError, ValueError):
        return None


def _pairs(text: str) -> dict[str, str]:
    """The pairs of lines such as "NAME: 'value'"."""
    found = re.findall(r"^\s*(\w+)\s*:\s*'?(.*?)'?\s*$", text, re.MULTILINE)
    return dict(found)
