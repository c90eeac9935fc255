"""The scripts run, with stubs in the place of clouds, clusters, hosts and training.

The stubs of gcloud, ssh and srun run what they are given as a host's shell would, so that quoting
is tried to its end.
"""

import os
import pathlib
import signal
import subprocess
import time

import pytest
from launch_jobs import HOSTILE, JOBS, SCRIPTS
from test_launch_texts import hostile

from rnngen_jax import launch

NEXT = r"""
# Prints and removes the first line of a file; its last line stays.
next() {
  head -n 1 "$LOG/$1"
  if [ "$(wc -l <"$LOG/$1")" -gt 1 ]; then sed -i 1d "$LOG/$1"; fi
}
"""
STUBS = {
    # Ends with the next code of its process; "forever" only when it is asked to; "late" with 1 when
    # both processes are there.
    "rnngen": NEXT
    + r"""
me="${JAX_PROCESS_ID:-0}"
trap 'echo "$me" >>"$LOG/terminated"; exit 42' TERM
printf '%s\0' "$@" >"$LOG/words.$me"
code="$(next "codes.$me")"
joined="${JAX_NUM_PROCESSES:--} ${JAX_COORDINATOR_ADDRESS:--}"
echo "$me $joined ${JAX_PLATFORMS:--}" >>"$LOG/started"
while [ "$code" = forever ]; do /bin/sleep 0.02; done
if [ "$code" = late ]; then
  until [ "$(wc -l <"$LOG/started")" -eq 2 ]; do /bin/sleep 0.02; done
  code=1
fi
exit "$code"
""",
    "gcloud": NEXT
    + r"""
for word in "$@"; do
  case "$word" in --command=*) command="${word#--command=}" ;; esac
done
case "$*" in
  *--command=true*) exit 0 ;;
  *"queued-resources describe"*) next states ;;
  *"tpu-vm describe"*) echo 10.0.0.2 ;;
  *"tpu-vm ssh"*) echo ssh >>"$LOG/calls"; sh -c "$command" ;;
  *) printf '%s\n' "$*" >>"$LOG/calls" ;;
esac
""",
    "ssh": r"""
echo "${*: -2:1}" >>"$LOG/calls"
exec sh -c "${*: -1}"
""",
    "srun": r"""
echo "srun ${*:1:$#-3}" >>"$LOG/calls"
worst=0
for ((n = 0; n < ${SLURM_JOB_NUM_NODES:-1}; n++)); do
  SLURM_PROCID=$n bash -c "${*: -1}"
  code=$?
  if [ "$code" -gt "$worst" ]; then worst=$code; fi
done
exit "$worst"
""",
    "scontrol": r"""
if [ "$1" = show ]; then printf '%s\n' n1 n2; else echo "scontrol $*" >>"$LOG/calls"; fi
""",
    # Pauses between looks are short; the time that a run is given to end is not, since a busy
    # machine may take seconds to run a trap.
    "sleep": """
if [ "$1" -ge 100 ]; then exec /bin/sleep 30; fi
exec /bin/sleep 0.02
""",
}


class Machine:
    """A folder with stubs on its PATH, and what they have logged."""

    def __init__(self, folder):
        self.folder = folder
        self.home = folder / "home"
        self.bin = folder / "bin"
        self.log = folder / "log"
        for path in (self.home, self.bin, self.log):
            path.mkdir()
        for name, text in STUBS.items():
            (self.bin / name).write_text(f"#!/usr/bin/env bash\n{text}")
            (self.bin / name).chmod(0o755)
        self.say("states", "ACTIVE")

    def say(self, name, *lines):
        """What a stub is to answer, one line per call."""
        (self.log / name).write_text("".join(f"{line}\n" for line in lines))

    def start(self, target, job):
        script = self.folder / "script.sh"
        script.write_text(launch.text(target, job))
        slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_NUM_NODES": "2"}
        environment = {
            "PATH": f"{self.bin}:{os.defpath}",
            "HOME": str(self.home),
            "LOG": str(self.log),
            **(slurm if target == "slurm" else {}),
        }
        return subprocess.Popen(
            ["bash", script], env=environment, cwd=self.home, stderr=subprocess.PIPE, text=True
        )

    def run(self, target, job):
        process = self.start(target, job)
        _, self.stderr = process.communicate(timeout=60)
        return process.returncode

    def lines(self, name):
        path = self.log / name
        return path.read_text().splitlines() if path.exists() else []

    def words(self, process=0):
        """The arguments that training was started with."""
        return (self.log / f"words.{process}").read_text().split("\0")[:-1]


def plain(target):
    """A job without its setup, which would look for a bucket or a disk."""
    job = JOBS[target]
    return type(job)(**{**vars(job), "setup": 'printf "%s\\n" "a  b" >>"$LOG/setup"'})


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def verbs(machine):
    """What was asked of the cloud."""
    known = ("create", "delete", "ssh")
    return [next(verb for verb in known if verb in line.split()) for line in machine.lines("calls")]


def test_queued_trains_once_and_deletes_the_slice(machine):
    machine.say("states", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE")
    machine.say("codes.0", 0)
    assert machine.run("queued", plain("queued")) == 0
    assert verbs(machine) == ["create", "ssh", "delete"]
    create, _, delete = machine.lines("calls")
    assert create == (
        "compute tpus queued-resources create row-lstm --zone=us-west4-a --project=my-project "
        "--node-id=row-lstm --accelerator-type=v5litepod-16 --runtime-version=v2-alpha-tpuv5-lite "
        "--spot"
    )
    assert delete.endswith("delete row-lstm --zone=us-west4-a --project=my-project --force --quiet")
    assert machine.lines("started") == ["0 - 10.0.0.2:8476 tpu,cpu"]
    assert machine.lines("setup") == ["a  b"]
    assert machine.words() == JOBS["queued"].command[1:]


def test_queued_asks_for_another_slice_when_preempted(machine):
    machine.say("codes.0", 42, 42, 0)
    assert machine.run("queued", plain("queued")) == 0
    assert verbs(machine) == ["create", "ssh", "delete"] * 3


def test_queued_goes_on_after_a_slice_that_was_gone_before_it_could_save(machine):
    machine.say("states", "ACTIVE", "ACTIVE", "SUSPENDED", "ACTIVE")
    machine.say("codes.0", 255, 0)
    assert machine.run("queued", plain("queued")) == 0
    assert verbs(machine) == ["create", "ssh", "delete"] * 2


def test_queued_goes_on_after_a_slice_that_was_gone_before_it_was_used(machine):
    machine.say("states", "PROVISIONING", "SUSPENDING", "ACTIVE")
    machine.say("codes.0", 0)
    assert machine.run("queued", plain("queued")) == 0
    assert verbs(machine) == ["create", "delete", "create", "ssh", "delete"]


def test_queued_stops_at_a_failure_and_deletes_the_slice(machine):
    machine.say("codes.0", 1)
    assert machine.run("queued", plain("queued")) == 1
    assert verbs(machine) == ["create", "ssh", "delete"]
    assert "the run has failed with exit code 1" in machine.stderr


def test_queued_stops_at_a_request_that_fails(machine):
    machine.say("states", "FAILED")
    assert machine.run("queued", plain("queued")) == 1
    assert verbs(machine) == ["create", "delete"]


def test_queued_deletes_the_slice_when_it_is_ended_itself(machine):
    machine.say("states", "WAITING_FOR_RESOURCES")
    process = machine.start("queued", plain("queued"))
    until(lambda: machine.lines("calls"))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert verbs(machine) == ["create", "delete"]


@pytest.mark.parametrize(
    ("codes", "ended", "requeued"), [((0, 0), 0, False), ((42, 42), 42, True), ((0, 1), 1, False)]
)
def test_slurm_queues_a_preempted_job_again(machine, codes, ended, requeued):
    for n, code in enumerate(codes):
        machine.say(f"codes.{n}", code)
    assert machine.run("slurm", plain("slurm")) == ended
    calls = machine.lines("calls")
    assert calls[0] == "srun --ntasks-per-node=1 --wait=300 --cpus-per-task=16"
    assert calls[1:] == ["scontrol requeue 7"] * requeued
    assert machine.lines("started") == ["0 2 n1:8476 cuda,cpu", "1 2 n1:8476 cuda,cpu"]
    assert machine.words(1) == JOBS["slurm"].command[1:]


def test_slurm_asks_for_sigterm_to_the_tasks_before_the_time_is_over():
    head = launch.text("slurm", JOBS["slurm"]).split("\nset -e")[0].splitlines()
    assert {"#SBATCH --requeue", "#SBATCH --signal=TERM@120", "#SBATCH --nodes=2"} <= set(head)
    assert head[0] == "#!/usr/bin/env bash"


def test_ssh_trains_on_all_hosts(machine):
    machine.say("codes.0", 0)
    machine.say("codes.1", 0)
    assert machine.run("ssh", plain("ssh")) == 0
    assert sorted(machine.lines("calls")) == ["me@two", "one"]
    assert sorted(machine.lines("started")) == ["0 2 one:8476 -", "1 2 one:8476 -"]
    assert machine.words(0) == machine.words(1) == JOBS["ssh"].command[1:]
    assert machine.lines("setup") == ["a  b"] * 2


def test_ssh_starts_a_preempted_run_again(machine):
    machine.say("codes.0", 42, 0)
    machine.say("codes.1", 42, 0)
    assert machine.run("ssh", plain("ssh")) == 0
    assert sorted(machine.lines("calls")) == ["me@two"] * 2 + ["one"] * 2


def test_ssh_ends_the_other_hosts_when_one_fails(machine):
    machine.say("codes.0", "forever")
    machine.say("codes.1", "late")
    assert machine.run("ssh", plain("ssh")) == 1
    assert machine.lines("terminated") == ["0"]
    assert len(machine.lines("calls")) == 2


def test_ssh_saves_the_run_on_all_hosts_when_it_is_ended_itself(machine):
    machine.say("codes.0", "forever")
    machine.say("codes.1", "forever")
    process = machine.start("ssh", plain("ssh"))
    until(lambda: len(machine.lines("started")) == 2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 42
    assert sorted(machine.lines("terminated")) == ["0", "1"]
    assert len(machine.lines("calls")) == 2


@pytest.mark.parametrize("target", SCRIPTS)
def test_hostile_values_reach_training_as_they_were_given(target, machine):
    for value in HOSTILE:
        for n in (0, 1):
            machine.say(f"codes.{n}", 0)
        job = hostile(plain(target), value)
        assert machine.run(target, job) == 0, machine.stderr
        assert machine.words() == job.command[1:]
    assert not list(machine.home.iterdir())
    assert not (pathlib.Path.cwd() / "broken").exists()


def until(fact, seconds=30):
    """Waits for a fact."""
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end
        time.sleep(0.02)
