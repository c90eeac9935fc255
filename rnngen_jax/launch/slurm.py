"""A Slurm cluster: a batch script for `sbatch`.

Without the prefix B:, --signal reaches the tasks that srun has started, not the batch script: each
of them gets SIGTERM itself, saves and exits with the code of a preempted run, which srun passes on
as the largest of its tasks' codes. The script then puts the job back into the queue.
"""

import shlex

from rnngen_jax.hosts.place import PORT
from rnngen_jax.interrupts import PREEMPTED
from rnngen_jax.launch import shell
from rnngen_jax.launch.job import Job

NEEDS = {"name": "the job's name", "nodes": "how many nodes, such as 2"}
TAKES = ("gpus", "cpus", "partition", "time", "setup")

_SCRIPT = shell.Script(
    r"""#!/usr/bin/env bash
@@head
# Trains on a Slurm cluster until the run ends. Written by `rnngen launch --to=slurm`; start it with
# sbatch. A job that is preempted or near its time limit saves, and goes back into the queue.
set -euo pipefail

# A preemption's SIGTERM may reach this script, too: it waits for srun all the same.
trap : TERM
@@address
# What each node runs.
IFS= read -r -d '' remote <<'REMOTE' || true
@@remote
REMOTE

code=0
# Heartbeats end the other tasks soon after one has failed; --wait ends those that hang.
srun @@srun bash -c "$remote" || code=$?
if [ "$code" -eq @@preempted ]; then
  scontrol requeue "$SLURM_JOB_ID" || echo "the job could not be queued again" >&2
fi
exit "$code"
"""
)
_ADDRESS = rf"""
first="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)"
export JAX_COORDINATOR_ADDRESS="$first:{PORT}" JAX_NUM_PROCESSES="$SLURM_JOB_NUM_NODES"
"""
_WAIT = 300  # seconds


def text(job: Job) -> str:
    """The batch script."""
    nodes = job.nodes or 1
    head = {
        "job-name": job.name,
        "output": f"{job.name}-%j.log",
        "open-mode": "append",  # a job that is queued again goes on in the same file
        "nodes": nodes,
        "ntasks-per-node": 1,
        "gpus-per-node": job.gpus,
        "cpus-per-task": job.cpus,
        "partition": job.partition,
        "time": job.time,
        "signal": "TERM@120",
    }
    lines = [f"#SBATCH --{name}={value}" for name, value in head.items() if value is not None]
    srun = ["--ntasks-per-node=1", f"--wait={_WAIT}"]
    if job.cpus is not None:  # which srun does not take from sbatch
        srun.append(f"--cpus-per-task={job.cpus}")
    return _SCRIPT.substitute(
        head="\n".join([*lines, "#SBATCH --requeue"]),
        address=_ADDRESS if nodes > 1 else "",
        remote=shell.remote(job, *_variables(job, nodes)),
        srun=shlex.join(srun),
        preempted=PREEMPTED,
    )


def _variables(job: Job, nodes: int) -> list[str]:
    """The lines that set a task's variables."""
    lines = []
    if nodes > 1:
        lines.append('export JAX_PROCESS_ID="$SLURM_PROCID"')
    if job.gpus is not None:
        # Under Slurm, JAX gives a process of several the one GPU of its number unless it is told.
        own = ",".join(map(str, range(job.gpus)))
        lines.append(f"export JAX_PLATFORMS=cuda,cpu JAX_LOCAL_DEVICE_IDS={own}")
    return lines
