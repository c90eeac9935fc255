"""Hosts that are reached by ssh: a script for a machine that can log in to each of them.

Killing ssh does not end what it has started. So every host watches its end of the connection, which
the script holds open as long as the run is to go on: when it closes, for whatever reason, the host
sends its run SIGTERM, and SIGKILL to one that does not end.
"""

from rnngen_jax.hosts.place import PORT
from rnngen_jax.interrupts import PREEMPTED
from rnngen_jax.launch import shell
from rnngen_jax.launch.job import Job

NEEDS = {"hosts": "the names of the hosts with commas between, such as --hosts=a,b"}
TAKES = ("setup",)

_SCRIPT = shell.Script(
    r"""#!/usr/bin/env bash
# Trains on hosts that are reached by ssh. Written by `rnngen launch --to=ssh`.
#
# Keys must let this machine in without a password, and the hosts must reach the first of them by
# its name, on port @@port. Ctrl-C saves the run and ends it.
set -euo pipefail

hosts=(@@hosts)
options=(-o BatchMode=yes -o ServerAliveInterval=30)

# What each host runs.
IFS= read -r -d '' remote <<'REMOTE' || true
@@remote
REMOTE

say() { printf '%s %s\n' "$(date -u +%FT%TZ)" "$1" >&2; }

@@quote

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
mkfifo "$work/open"
asked=""
stop() {
  asked=yes
  exec 9>&-
}
trap stop INT TERM

# Trains on all hosts; returns the exit code of the first that fails, after all have ended.
train() {
  local code n pids=() result=0 variables=""
  exec 9<>"$work/open" # the hosts go on as long as this is open
  exec 8<"$work/open"
  for n in "${!hosts[@]}"; do
    if [ "${#hosts[@]}" -gt 1 ]; then
      variables="env JAX_COORDINATOR_ADDRESS=${hosts[0]#*@}:@@port"
      variables+=" JAX_NUM_PROCESSES=${#hosts[@]} JAX_PROCESS_ID=$n "
    fi
    # shellcheck disable=SC2029 # the command is made here, quoted for the host
    ssh "${options[@]}" "${hosts[n]}" "${variables}bash -c $(quote "$remote")" <&8 8<&- 9>&- &
    pids+=("$!")
  done
  while [ "${#pids[@]}" -gt 0 ]; do
    sleep 1 8<&- 9>&- || true
    for n in "${!pids[@]}"; do
      if kill -0 "${pids[n]}" 2>/dev/null; then continue; fi
      code=0
      wait "${pids[n]}" || code=$?
      unset "pids[n]"
      if [ "$code" -eq 0 ]; then continue; fi
      say "${hosts[n]}: exit code $code"
      if [ "$result" -eq 0 ]; then result=$code; fi
      # Hosts of a preempted run agree on where to stop; those of a failed one wait for each other.
      if [ "$code" -ne @@preempted ]; then exec 9>&-; fi
    done
  done
  exec 8<&- 9>&-
  return "$result"
}

while true; do
  code=0
  train || code=$?
  if [ "$code" -ne @@preempted ] || [ -n "$asked" ]; then exit "$code"; fi
  say "preempted"
  sleep 30 || true
  if [ -n "$asked" ]; then exit "$code"; fi
done
"""
)
_LAST = r"""exec 3<&0
@@train </dev/null 3<&- &
run=$!
{
  while read -r -u 3 _; do :; done
  kill -TERM "$run"
  sleep 120
  kill -KILL "$run"
} >/dev/null 2>&1 &
watch=$!
exec 3<&-
code=0
wait "$run" || code=$?
kill "$watch" 2>/dev/null || true
exit "$code"
"""


def text(job: Job) -> str:
    """The script."""
    return _SCRIPT.substitute(
        hosts=shell.array((job.hosts or "").split(",")),
        port=PORT,
        remote=shell.remote(job, last=_LAST.rstrip()),
        quote=shell.QUOTE,
        preempted=PREEMPTED,
    )
