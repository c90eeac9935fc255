"""Train a model on a data set, or resume a run.

  rnngen train --config=pixel_rnn --workdir=runs/digits
  rnngen train --config=pixel_rnn --workdir=runs/digits --config.model.cell=lstm
  rnngen train --config=my_config.py --workdir=runs/mine

--config is the name of a config that ships, or a Python file with a function get_config. One flag
changes one choice: fields that the config file set for the choice it replaces, such as AdamW's
weight decay under --config.optimizer.name=sgd, are reset to their defaults, and a line says so.

--config.training.seeds=4 trains four runs at once, with the seeds config.training.seed to
config.training.seed + 3: metrics.jsonl then has each metric's mean, its standard error and the
value of each seed.

Without a checkpoint in --workdir a new run starts; with one, the same command resumes from the
newest. A folder that holds a run of another config is refused, as is one that another training
process is using. With more --config.training.steps, training goes on at the last learning rate of
the schedule, which is as long as the steps that the run started with, unless
--config.optimizer.decay_steps made it longer from the start.

On Ctrl-C or SIGTERM, training finishes the current steps, saves the run and exits with code 130 or
42; on a second signal it exits at once. --preempted_exit_code replaces 42, for clusters that take
it for a failure.

--workdir=gs://BUCKET/NAME keeps the run in a bucket of Google Cloud Storage (pip install
'rnngen_jax[gcs]').

On several hosts, start the same command on each, with --workdir in a bucket or on a shared disk.
They find each other under srun, on the hosts of a TPU, or by the environment variables
JAX_COORDINATOR_ADDRESS (HOST:PORT of the first), JAX_NUM_PROCESSES and JAX_PROCESS_ID; --hosts=off
stays alone. All of them stop at the same step when one gets SIGTERM. When one is gone, the others
say which and end with code 43, as they do when one has not come, is silent or stays behind for
--hosts_timeout seconds.
"""

from typing import Any

from rnngen_jax import interrupts, paths
from rnngen_jax.commands.flags import CONFIG, HOSTS, WORKDIR, Flag, Hosts
from rnngen_jax.config import require

FLAGS = (
    CONFIG._replace(required=True),
    WORKDIR._replace(help="the run's folder, created if missing"),
    Flag(
        "preempted_exit_code",
        "integer",
        "exit code after SIGTERM, once the run is saved, in [0, 255]",
        interrupts.PREEMPTED,
    ),
    HOSTS,
)


def run(config: Any, workdir: str, preempted_exit_code: int, hosts: Hosts) -> int:
    """Trains, and saves the run's state if it was asked to stop early.

    Args:
      config: the `ConfigDict` of --config.
      workdir: the run's folder.
      preempted_exit_code: exit code after SIGTERM.
      hosts: the other processes.

    Returns:
      The exit code: 0, or `preempted_exit_code` after SIGTERM.

    Raises:
      UserError: an invalid config, or a folder that holds another run or is in use.
      RunError: training failed.
    """
    from rnngen_jax import experiment

    code, where = preempted_exit_code, "--preempted_exit_code"
    require(0 <= code <= 255, where, code, "in [0, 255]")
    interrupts.set_preempted_exit_code(code)
    given = experiment.check(config)  # before the slow import of JAX

    import jax

    from rnngen_jax import runs
    from rnngen_jax.training.digests import versions
    from rnngen_jax.training.preemption import Interruption

    folder = paths.of(workdir)
    settings = {"config": experiment.to_dict(given), "versions": versions()}
    interruption = Interruption(interrupts.asked, interrupts.deferred)
    with hosts.joined(settings) as peers:
        outcome = runs.train(given, folder, interruption=interruption, peers=peers)
        if not outcome.ended:
            interrupts.told()
        elif jax.process_index() == 0:
            if (folder / "samples").exists():
                print(f"pictures: {folder / 'samples'}")
            print(f"metrics: {folder / 'metrics.jsonl'}")
            print(f"evaluate with: rnngen evaluate --workdir={folder}")
    return preempted_exit_code if outcome.state == "preempted" else 0
