"""The scripts and manifests as they are, their linters, and what is refused.

After a change that is meant, `RNNGEN_GOLDEN=write pytest tests/launch` writes the files of golden/
again; read their difference before it is committed.
"""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
import yaml
from launch_jobs import BUCKET, ENDINGS, HOSTILE, JOBS, SCRIPTS

from rnngen_jax import launch
from rnngen_jax.errors import UserError
from rnngen_jax.launch import slices
from rnngen_jax.pods import topology

HERE = pathlib.Path(__file__).parent
# The package of the extra `test` puts shellcheck beside Python, which need not be on PATH.
SHELLCHECK = shutil.which("shellcheck", path=f"{pathlib.Path(sys.executable).parent}:{os.defpath}")
SHELLCHECK = SHELLCHECK or shutil.which("shellcheck")


@pytest.mark.parametrize("target", JOBS)
def test_a_text_is_that_of_its_golden_file(target):
    path = HERE / "golden" / f"{target}.{ENDINGS[target]}"
    text = launch.text(target, JOBS[target])
    if os.environ.get("RNNGEN_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


def variants(target):
    """A target's job, on one host, without optional fields, and with hostile values."""
    job = JOBS[target]
    yield job
    if job.topology:
        yield dataclasses.replace(job, topology="v5e:1x1", tier=None, service_account=None)
        if target == "gke":
            yield dataclasses.replace(job, topology="tpu7x:2x2x1")
        else:
            yield dataclasses.replace(job, topology="v5p:2x2x4", runtime="v2-other", project=None)
    if job.nodes:
        yield dataclasses.replace(job, nodes=1, gpus=None, cpus=None, partition=None, setup=None)
    if job.hosts:
        yield dataclasses.replace(job, hosts="one", setup=None)
    for value in HOSTILE:
        yield hostile(job, value)


def hostile(job, value):
    words = (*job.words, f"--config.data.name=npz:{value}")
    return dataclasses.replace(job, words=words, workdir=f"{job.workdir}/{value}")


@pytest.mark.parametrize("target", SCRIPTS)
def test_scripts_are_of_bash(target):
    for job in variants(target):
        script = launch.text(target, job)
        assert "\nset -euo pipefail\n" in script
        done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck is not installed; the extra test has it")
@pytest.mark.parametrize("target", SCRIPTS)
def test_scripts_pass_shellcheck(target, tmp_path):
    paths = []
    for n, job in enumerate(variants(target)):
        paths.append(tmp_path / f"{n}.sh")
        paths[-1].write_text(launch.text(target, job))
    # What the hosts run is a text within the script, and a script itself.
    paths.append(tmp_path / "remote.sh")
    inside = paths[0].read_text().split("<<'REMOTE' || true\n")[1].split("\nREMOTE\n")[0]
    paths[-1].write_text(f"#!/usr/bin/env bash\n{inside}\n")
    done = subprocess.run([SHELLCHECK, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def manifest(job):
    return yaml.safe_load(launch.text("gke", job))


def test_the_manifest_is_of_jobsets_schema():
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((HERE / "jobset.schema.json").read_text())
    for job in variants("gke"):
        jsonschema.validate(manifest(job), schema)
    broken = manifest(JOBS["gke"])
    broken["spec"]["failurePolicy"]["rules"][0]["action"] = "Restart"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema)


def test_its_job_and_pod_are_of_kubernetes_schema():
    validator = pytest.importorskip("kubernetes_validate")
    for job in variants("gke"):
        (replicated,) = manifest(job)["spec"]["replicatedJobs"]
        spec = replicated["template"]["spec"]
        whole = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, "spec": spec}
        validator.validate(whole, "1.31", strict=True)
    spec["template"]["spec"]["restartPolice"] = "Never"
    with pytest.raises(validator.ValidationError):
        validator.validate(whole, "1.31", strict=True)


def test_a_preempted_pod_starts_the_jobset_again_and_a_failed_one_fails_it():
    spec = manifest(JOBS["gke"])["spec"]
    assert spec["failurePolicy"] == {
        "maxRestarts": 0,
        "rules": [
            {
                "name": "preempted",
                "action": "RestartJobSetAndIgnoreMaxRestarts",
                "onJobFailureReasons": ["PodFailurePolicy"],
            }
        ],
    }
    job = spec["replicatedJobs"][0]["template"]["spec"]
    assert (job["completions"], job["parallelism"], job["backoffLimit"]) == (64, 64, 0)
    saved, disrupted = job["podFailurePolicy"]["rules"]
    (container,) = job["template"]["spec"]["containers"]
    assert saved["action"] == disrupted["action"] == "FailJob"
    assert saved["onExitCodes"]["values"] == [42, 43]
    assert saved["onExitCodes"]["containerName"] == container["name"]
    assert disrupted["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert container["resources"]["limits"] == {"google.com/tpu": "4"}


@pytest.mark.parametrize("value", HOSTILE)
def test_kubernetes_hands_every_word_on_as_it_was_given(value):
    job = hostile(JOBS["gke"], value)
    (replicated,) = manifest(job)["spec"]["replicatedJobs"]
    (container,) = replicated["template"]["spec"]["template"]["spec"]["containers"]
    # Kubernetes makes $ of $$, and would replace a $(NAME) that is left after that.
    assert all("$" not in word.replace("$$", "") for word in container["command"])
    assert [word.replace("$$", "$") for word in container["command"]] == job.command


SLICES = [
    ("v4:2x2x4", 16, 4, ["--type=v4", "--topology=2x2x4"]),
    ("v5e:1x1", 1, 1, ["--accelerator-type=v5litepod-1"]),
    ("v5e:2x4", 8, 1, ["--accelerator-type=v5litepod-8"]),
    ("v5e:4x4", 16, 4, ["--accelerator-type=v5litepod-16"]),
    ("v5e:16x16", 256, 64, ["--accelerator-type=v5litepod-256"]),
    ("v5p:2x2x1", 4, 1, ["--type=v5p", "--topology=2x2x1"]),
    ("v5p:8x8x8", 512, 128, ["--type=v5p", "--topology=8x8x8"]),
    ("v6e:2x2", 4, 1, ["--accelerator-type=v6e-4"]),
    ("v6e:4x8", 32, 8, ["--accelerator-type=v6e-32"]),
]


@pytest.mark.parametrize(("given", "chips", "hosts", "flags"), SLICES)
def test_slices(given, chips, hosts, flags):
    found = slices.find(given)
    assert (found.chips, found.hosts, found.flags) == (chips, hosts, flags)
    assert found.chips_per_host * hosts == chips


def test_slices_are_of_the_chips_that_compile_knows():
    assert slices.KINDS.keys() == topology.CHIPS.keys()


REFUSED = [
    ("ssh", {"zone": "us-west4-a"}, "--zone does not apply to --to=ssh; it takes --workdir, --ho"),
    ("ssh", {"hosts": None}, "--to=ssh needs --hosts: the names of the hosts with commas between"),
    ("ssh", {"hosts": "-oProxyCommand=x"}, "--hosts must be names with commas between, got '-o"),
    ("ssh", {"hosts": "a,b;x"}, "--hosts must be names with commas between, got 'a,b;x'."),
    ("gke", {"image": None}, "--to=gke needs --image: a container image with rnngen in it, such"),
    ("gke", {"setup": "x"}, "--setup does not apply to --to=gke; it takes --workdir, --name, --to"),
    ("gke", {"workdir": "runs/a"}, "--workdir must be on a bucket for --to=gke, such as gs://BUC"),
    ("gke", {"name": "A b"}, "--name must be 1 to 40 of a-z, 0-9 and -, a letter first, got 'A b'"),
    ("gke", {"name": "a\nb"}, "--name must be on one line, without control characters, got 'a\\n"),
    ("gke", {"topology": "v5e:3x3"}, "--topology must be v5e with one of 1x1, 2x2, 2x4, 4x4, 4x8"),
    ("gke", {"topology": "v4:8x4x4"}, "or ascending multiples of 4, got 'v4:8x4x4'."),
    ("gke", {"topology": "cpu:8"}, "--topology must be a TPU slice such as v5e:4x4 (of v4, v5e,"),
    ("gke", {"tier": "cheap"}, "--tier must be one of on-demand, spot, got 'cheap'."),
    ("queued", {"setup": None}, "--to=queued needs --setup: a command that installs rnngen on a"),
    ("queued", {"topology": "tpu7x:2x2x1"}, "is not offered as a queued resource; use --to=gke."),
    ("queued", {"workdir": "gs://a"}, "--workdir must be on a bucket for --to=queued, such as"),
    ("queued", {"zone": "--help"}, "--zone must be a zone's name, got '--help'."),
    ("queued", {"setup": "a\nb"}, "--setup must be on one line, without control characters"),
    ("slurm", {"nodes": 0}, "--nodes must be ≥ 1, got 0."),
    ("slurm", {"time": "soon"}, "--time must be as sbatch takes it, such as 12:00:00, got 'soon'."),
    ("slurm", {"words": ("--config=a\x1b",)}, "--config must be on one line, without control"),
    ("sssh", {}, "--to must be one of gke, queued, slurm, ssh, got 'sssh'; did you mean 'ssh'?"),
]


@pytest.mark.parametrize(("target", "changed", "said"), REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(target, changed, said):
    job = JOBS.get(target, JOBS["ssh"])
    with pytest.raises(UserError) as error:
        launch.text(target, dataclasses.replace(job, **changed))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_the_jobs_of_these_tests_need_no_more_than_they_say():
    assert JOBS["gke"].workdir == BUCKET
    for target, job in JOBS.items():
        for name in launch.TARGETS[target].NEEDS:
            with pytest.raises(UserError, match=f"--to={target} needs --{name}: "):
                launch.text(target, dataclasses.replace(job, **{name: None}))
