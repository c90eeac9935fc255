"""Jobs for the tests of launching."""

from rnngen_jax.launch.job import Job

WORDS = ("--config=row_lstm:mnist", "--config.training.steps=2000", "--config.model.cell=gru")
BUCKET = "gs://my-bucket/runs/row_lstm"

JOBS = {
    "queued": Job(
        WORDS,
        BUCKET,
        name="row-lstm",
        topology="v5e:4x4",
        zone="us-west4-a",
        project="my-project",
        tier="spot",
        setup="source <(gcloud storage cat gs://my-bucket/setup.sh)",
    ),
    "gke": Job(
        WORDS,
        BUCKET,
        name="row-lstm",
        topology="v5e:16x16",
        tier="spot",
        service_account="trainer",
        image="us-west4-docker.pkg.dev/my-project/images/rnngen:1",
    ),
    "slurm": Job(
        WORDS,
        "/shared/runs/row_lstm",
        name="row-lstm",
        nodes=2,
        gpus=8,
        cpus=16,
        partition="preemptible",
        time="12:00:00",
        setup="source /shared/venv/bin/activate",
    ),
    "ssh": Job(
        WORDS, "/shared/runs/row_lstm", hosts="one,me@two", setup="source /shared/venv/bin/activate"
    ),
}
ENDINGS = {"queued": "sh", "gke": "yaml", "slurm": "sh", "ssh": "sh"}
SCRIPTS = [name for name, ending in ENDINGS.items() if ending == "sh"]

# What shells, YAML or Kubernetes would read as their own.
HOSTILE = (
    "'; touch broken; '",
    "$(touch broken)",
    "`touch broken`",
    '"; touch broken; "',
    "a b  c",
    "$HOME ${HOME} $$(HOME) \\ * ? ~",
    "REMOTE",
    "@@train {x} %s",
    "key: [value] # no comment",
    "ünï ✓",
)
