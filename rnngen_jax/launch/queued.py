"""A TPU slice as a queued resource of Google Cloud: a script for a machine with gcloud.

The script asks for the slice, waits for it, trains on all its hosts and deletes it. When the slice
is taken away, it asks for another, on which the same command resumes the run.
"""

import shlex

from rnngen_jax.hosts.place import PORT
from rnngen_jax.interrupts import PREEMPTED
from rnngen_jax.launch import shell, slices
from rnngen_jax.launch.job import Job, require_bucket

NEEDS = {
    "name": "the queued resource's name",
    "topology": "the slice, such as v5e:4x4",
    "zone": "where the slice is, such as us-west4-a",
    "setup": "a command that installs rnngen on a new host and brings it onto PATH",
}
TAKES = ("project", "tier", "runtime", "service_account")

_SCRIPT = shell.Script(
    r"""#!/usr/bin/env bash
# Trains on a queued TPU slice until the run ends. Written by `rnngen launch --to=queued`.
#
# Run it where gcloud is signed in and the connection is steady. The slice is deleted when the
# script ends for whatever reason, so that nothing is left to be paid for.
set -euo pipefail

name=@@name
place=(@@place)
slice=(@@slice)
hosts=@@hosts

# What each host runs.
IFS= read -r -d '' remote <<'REMOTE' || true
@@remote
REMOTE

say() { printf '%s %s: %s\n' "$(date -u +%FT%TZ)" "$name" "$1" >&2; }

@@quote

state() {
  gcloud compute tpus queued-resources describe "$name" "${place[@]}" \
    --format='value(state.state)' || echo UNKNOWN
}

on_all_hosts() {
  gcloud compute tpus tpu-vm ssh "$name" "${place[@]}" --worker=all \
    --ssh-flag=-oServerAliveInterval=30 --command="$1" </dev/null
}

made=""
delete() {
  [ -n "$made" ] || return 0
  say "deleting the slice"
  gcloud compute tpus queued-resources delete "$name" "${place[@]}" --force --quiet
  made=""
}
trap delete EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

create() {
  say "asking for the slice"
  gcloud compute tpus queued-resources create "$name" "${place[@]}" --node-id="$name" "${slice[@]}"
  made=yes
}

# Returns 0 once the slice is there, 1 if it was taken away before.
await() {
  local now
  while true; do
    now="$(state)"
    case "$now" in
      ACTIVE) return 0 ;;
      SUSPENDING | SUSPENDED) return 1 ;;
      FAILED)
        say "the request has failed"
        exit 1
        ;;
    esac
    say "$now"
    sleep 30
  done
}

# A slice may be active before its hosts answer.
answering() {
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    if on_all_hosts true; then return 0; fi
    sleep 30
  done
  return 1
}

train() {
  local address command
  command="bash -c $(quote "$remote")"
  if [ "$hosts" -gt 1 ]; then
    address="$(gcloud compute tpus tpu-vm describe "$name" "${place[@]}" \
      --format='value(networkEndpoints[0].ipAddress)')" || return
    command="env JAX_COORDINATOR_ADDRESS=$address:@@port $command"
  fi
  on_all_hosts "$command"
}

# Whether the slice was taken away. A host that is gone returns no exit code of the run's, and
# the state follows with a delay.
taken() {
  for _ in 1 2 3 4 5; do
    case "$(state)" in SUSPENDING | SUSPENDED | FAILED) return 0 ;; esac
    sleep 30
  done
  return 1
}

while true; do
  create
  code=@@preempted
  if await; then
    say "training"
    code=1
    if answering; then
      code=0
      train || code=$?
    fi
  fi
  if [ "$code" -eq 0 ]; then
    say "the run has ended"
    exit 0
  fi
  if [ "$code" -ne @@preempted ] && ! taken; then
    say "the run has failed with exit code $code"
    exit "$code"
  fi
  say "preempted"
  delete
done
"""
)


def text(job: Job) -> str:
    """The script.

    Raises:
      UserError: a slice that is not offered as a queued resource, or a local workdir.
    """
    require_bucket(job, "queued")
    tpu = slices.find(job.topology or "")
    place = [f"--zone={job.zone}"]
    if job.project is not None:
        place.append(f"--project={job.project}")
    wanted = [*tpu.flags, f"--runtime-version={job.runtime or tpu.kind.runtime}"]
    if job.spot:
        wanted.append("--spot")
    if job.service_account is not None:
        wanted.append(f"--service-account={job.service_account}")
    # Without it a host whose TPU does not start would train on its CPU, at the price of a TPU.
    platforms = "export JAX_PLATFORMS=tpu,cpu"
    return _SCRIPT.substitute(
        name=shlex.quote(job.name or ""),
        place=shell.array(place),
        slice=shell.array(wanted),
        hosts=tpu.hosts,
        remote=shell.remote(job, platforms),
        quote=shell.QUOTE,
        port=PORT,
        preempted=PREEMPTED,
    )
