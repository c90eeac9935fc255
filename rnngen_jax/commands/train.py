"""Train a model on a data set, or go on with a run that was interrupted.

  rnngen train --config=pixel_rnn --workdir=runs/digits
  rnngen train --config=pixel_rnn --workdir=runs/digits --config.model.cell=lstm
  rnngen train --config=my_config.py --workdir=runs/mine

--config is the name of a config that ships, or a Python file with a function get_config. One flag
changes one choice: what the config set for the choice that it replaces, such as AdamW's weight
decay under --config.optimizer.name=sgd, goes back to its default, and a line says so.

--config.training.seeds=4 trains four runs at once, with the seeds config.training.seed to
config.training.seed + 3: metrics.jsonl then has each metric's mean, its standard error and the
value of each seed.

Without a checkpoint in --workdir a new run begins; with one, the same command goes on from the
newest. A folder that holds a run of another config is refused, and one that another training is
using. More --config.training.steps go on at the learning rate's last value: the schedule is as long
as the steps that the run began with, unless --config.optimizer.decay_steps makes it longer from the
start.

Ctrl-C and SIGTERM finish the steps under way, save the run and end with 130 and 42; a second one
ends at once. --preempted_exit_code sets another than 42, for a cluster that takes it for a failure.

On several hosts, start the same command on each, with --workdir on a shared disk, and with the
environment variables JAX_COORDINATOR_ADDRESS (HOST:PORT of the first), JAX_NUM_PROCESSES and
JAX_PROCESS_ID; the latter two may be missing where JAX knows the cluster, such as Slurm.
"""

import pathlib
from typing import Any

from rnngen_jax import interrupts
from rnngen_jax.commands.base import CONFIG, PREEMPTED_EXIT_CODE, WORKDIR
from rnngen_jax.config import require

FLAGS = (
    CONFIG._replace(required=True),
    WORKDIR._replace(help="the run's folder, made if missing"),
    PREEMPTED_EXIT_CODE,
)


def run(config: Any, workdir: str, preempted_exit_code: int) -> int:
    """Trains.

    Args:
      config: the `ConfigDict` of --config.
      workdir: the run's folder.
      preempted_exit_code: what a process ends with that SIGTERM has asked to.

    Returns:
      0, also when the run was asked to end early: its state is saved then.

    Raises:
      UserError: a config that does not fit, or a folder that holds another run or is in use.
      RunError: the training failed.
    """
    from rnngen_jax import experiment

    code, where = preempted_exit_code, "--preempted_exit_code"
    require(0 <= code <= 255, where, code, "in [0, 255]")
    interrupts.set_preempted_exit_code(code)
    given = experiment.check(config)  # before JAX is waited for

    import jax

    from rnngen_jax import runs
    from rnngen_jax.runs.backend import join_hosts
    from rnngen_jax.training.preemption import Interruption

    folder = pathlib.Path(workdir)
    join_hosts()
    outcome = runs.train(
        given, folder, interruption=Interruption(interrupts.asked, interrupts.deferred)
    )
    if not outcome.ended:
        interrupts.told()
    elif jax.process_index() == 0:
        if (folder / "samples").exists():
            print(f"pictures: {folder / 'samples'}")
        print(f"metrics: {folder / 'metrics.jsonl'}")
        print(f"evaluate with: rnngen evaluate --workdir={folder}")
    return 0
