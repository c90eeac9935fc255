r"""Print the script or manifest that trains on machines elsewhere; no cloud is called.

  rnngen launch --to=queued --config=row_lstm:mnist --workdir=gs://BUCKET/runs/a --name=a \
    --topology=v5e:4x4 --zone=us-west4-a --tier=spot --setup="source setup.sh" --out=a.sh
  rnngen launch --to=gke --config=row_lstm:mnist --workdir=gs://BUCKET/runs/a --name=a \
    --topology=v5e:16x16 --image=REGION-docker.pkg.dev/PROJECT/REPO/rnngen --out=a.yaml
  rnngen launch --to=slurm --config=row_lstm --workdir=/shared/runs/a --name=a --nodes=2 --gpus=8
  rnngen launch --to=ssh --config=row_lstm --workdir=/shared/runs/a --hosts=one,two

queued is a TPU slice of Google Cloud as a queued resource; gke one of its Kubernetes, as a JobSet;
slurm a cluster; ssh any hosts. Each starts `rnngen train` with the same --config, its overrides and
--workdir on every host, joins the hosts, and starts it again when it ends with exit code 42: it was
asked to stop and has saved. It stops when the run ends, or fails with any other code.

The config is checked here; the data are not needed. A config file by its path must be on every host
under the same path. --workdir must be on a bucket for queued and gke, and on a shared disk
otherwise. --setup is a shell command that each host runs before training, such as one that installs
rnngen or activates its environment; for gke that is the image's part.
"""

import pathlib
import re
import sys

from rnngen_jax import launch
from rnngen_jax.commands.flags import CONFIG, OUT, WORKDIR, Flag, Given
from rnngen_jax.launch.job import Job

FLAGS = (
    Flag("to", "string", "queued, gke, slurm or ssh", required=True),
    CONFIG._replace(kind="command", required=True),
    WORKDIR._replace(help="the run's folder, as all hosts reach it"),
    Flag("name", "string", "the job's name"),
    Flag("topology", "string", "a TPU slice such as v5e:4x4, named as for compile"),
    Flag("zone", "string", "queued: the slice's zone"),
    Flag("project", "string", "queued: the project; by default gcloud's"),
    Flag("tier", "string", "queued, gke: spot or on-demand; by default on-demand"),
    Flag("runtime", "string", "queued: the hosts' software; by default the TPU version's for JAX"),
    Flag("service_account", "string", "queued, gke: as whom the hosts read and write"),
    Flag("image", "string", "gke: a container image with rnngen in it"),
    Flag("nodes", "integer", "slurm: how many nodes"),
    Flag("gpus", "integer", "slurm: GPUs of each node"),
    Flag("cpus", "integer", "slurm: CPUs of each node"),
    Flag("partition", "string", "slurm: the partition"),
    Flag("time", "string", "slurm: the time limit, such as 12:00:00"),
    Flag("hosts", "string", "ssh: names of the hosts with commas between"),
    Flag("setup", "string", "queued, slurm, ssh: a shell command before training"),
    OUT._replace(help="the file to write; by default stdout"),
)


def run(
    to: str,
    config: Given,
    workdir: str,
    out: str | None,
    **fields: str | int | None,
) -> None:
    """Prints or writes the script or manifest.

    Args:
      to: the target.
      config: the `ConfigDict` of --config, and its flags.
      workdir: the run's folder.
      out: a file to write, or `None` for stdout.
      **fields: the other fields of a `Job`.

    Raises:
      UserError: an invalid config, or flags that the target lacks, does not use or cannot take.
    """
    job = Job(words=config.words, workdir=workdir, **fields)  # type: ignore[arg-type]
    text = launch.text(to, job)  # first, as it needs no JAX

    from rnngen_jax import continuing, experiment
    from rnngen_jax.files import replacing

    continuing.resolve(experiment.check(config.config))
    given = [word.partition("=")[2] for word in config.words if re.match("--?config=", word)]
    file = given[0].partition(":")[0]
    if pathlib.Path(file).is_file():
        print(f"note: {file} must be on every host, under this path.", file=sys.stderr)
    if out is None:
        print(text, end="")
        return
    with replacing(out) as temporary:
        temporary.write_text(text)
    print(out)
