"""Scripts and manifests that start a run on machines elsewhere; nothing here calls a cloud.

Each target is one module: `NEEDS` says which fields of a `Job` it cannot do without and what to
give, `TAKES` names the optional ones, and `text(job)` is what to run or to apply.
"""

from rnngen_jax.config import require_choice
from rnngen_jax.launch import gke, queued, slurm, ssh
from rnngen_jax.launch.job import Job, check

TARGETS = {"gke": gke, "queued": queued, "slurm": slurm, "ssh": ssh}


def text(target: str, job: Job) -> str:
    """The script or manifest that starts a job.

    Args:
      target: one of `TARGETS`.
      job: what to run, and where.

    Raises:
      UserError: an unknown target, or fields that it lacks, does not use or cannot take.
    """
    require_choice("--to", target, TARGETS)
    module = TARGETS[target]
    check(job, target, module.NEEDS, module.TAKES)
    return module.text(job)
