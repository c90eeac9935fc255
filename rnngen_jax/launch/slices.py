"""TPU slices: how many hosts they have, and what Google Cloud calls them.

The kinds are those of `pods.topology.CHIPS`. The figures are from Google Cloud's documentation:
cloud.google.com/tpu/docs, the page of each version (types, shapes, chips per VM) and "TPU software
versions" (runtimes); cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus (labels of nodes).
"""

import math
import re
from typing import NamedTuple

from rnngen_jax.config import require
from rnngen_jax.errors import UserError


class Kind(NamedTuple):
    """A version of the TPU.

    Attributes:
      accelerator: the first part of an accelerator type, such as the "v5litepod" of v5litepod-16;
        `None` if the Cloud TPU API does not offer it.
      label: of GKE's nodes, cloud.google.com/gke-tpu-accelerator.
      runtime: the software for JAX on a TPU VM, or `None` likewise.
      flat: whether slices have two dimensions instead of three.
    """

    accelerator: str | None
    label: str
    runtime: str | None
    flat: bool


KINDS = {
    "v4": Kind("v4", "tpu-v4-podslice", "tpu-ubuntu2204-base", False),
    "v5e": Kind("v5litepod", "tpu-v5-lite-podslice", "v2-alpha-tpuv5-lite", True),
    "v5p": Kind("v5p", "tpu-v5p-slice", "v2-alpha-tpuv5", False),
    "v6e": Kind("v6e", "tpu-v6e-slice", "v2-alpha-tpuv6e", True),
    # "For Ironwood (TPU7x), you must use GKE": docs of queued resources.
    "tpu7x": Kind(None, "tpu7x", None, False),
}
FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
SMALL = ("2x2x1", "2x2x2", "2x2x4", "2x4x4")  # less than a cube of 4x4x4
ALLOWED = f"a TPU slice such as v5e:4x4 (of {', '.join(KINDS)})"


class Slice(NamedTuple):
    """A TPU slice.

    Attributes:
      name: of its kind, such as "v5e".
      kind: its entry in `KINDS`.
      shape: such as "4x4".
      chips: of all its hosts.
      hosts: how many, each of which runs one process.
    """

    name: str
    kind: Kind
    shape: str
    chips: int
    hosts: int

    @property
    def chips_per_host(self) -> int:
        """Chips of each host."""
        return self.chips // self.hosts

    @property
    def flags(self) -> list[str]:
        """The slice as flags of `gcloud compute tpus queued-resources create`.

        A shape of three dimensions is given as such, since a number of chips has several; one of
        two follows from the number. v5e and v6e count chips.
        """
        if self.kind.accelerator is None:
            raise UserError(
                f"--topology={self.name}:{self.shape} is not offered as a queued resource; "
                "use --to=gke."
            )
        if self.kind.flat:
            return [f"--accelerator-type={self.kind.accelerator}-{self.chips}"]
        return [f"--type={self.kind.accelerator}", f"--topology={self.shape}"]


def find(topology: str) -> Slice:
    """The slice of a topology such as "v5e:4x4", named as for `compile`.

    Raises:
      UserError: no such kind, or no such shape of it.
    """
    name, _, shape = topology.partition(":")
    require(name in KINDS and bool(shape), "--topology", topology, ALLOWED)
    kind = KINDS[name]
    if kind.flat:
        allowed = f"{name} with one of {', '.join(FLAT)}"
        require(shape in FLAT, "--topology", topology, allowed)
    else:
        allowed = f"{name} with one of {', '.join(SMALL)}, or ascending multiples of 4"
        require(shape in SMALL or _cubes(shape), "--topology", topology, allowed)
    chips = math.prod(int(size) for size in shape.split("x"))
    # A VM has four chips, but for one of a single chip and one of eight that is the whole slice.
    hosts = 1 if chips < 4 or shape == "2x4" else chips // 4
    return Slice(name, kind, shape, chips, hosts)


def _cubes(shape: str) -> bool:
    """Whether a shape consists of whole cubes of 4x4x4."""
    if re.fullmatch(r"[1-9]\d{0,2}(x[1-9]\d{0,2}){2}", shape) is None:
        return False
    sizes = [int(size) for size in shape.split("x")]
    return sizes == sorted(sizes) and all(size % 4 == 0 for size in sizes)
