#!/usr/bin/env bash
# Trains on a queued TPU slice until the run ends. Written by `rnngen launch --to=queued`.
#
# Run it where gcloud is signed in and the connection is steady. The slice is deleted when the
# script ends for whatever reason, so that nothing is left to be paid for.
set -euo pipefail

name=row-lstm
place=(--zone=us-west4-a --project=my-project)
slice=(--accelerator-type=v5litepod-16 --runtime-version=v2-alpha-tpuv5-lite --spot)
hosts=4

# What each host runs.
IFS= read -r -d '' remote <<'REMOTE' || true
set -euo pipefail
eval 'source <(gcloud storage cat gs://my-bucket/setup.sh)' </dev/null
export JAX_PLATFORMS=tpu,cpu
exec rnngen train --config=row_lstm:mnist --config.training.steps=2000 --config.model.cell=gru --workdir=gs://my-bucket/runs/row_lstm
REMOTE

say() { printf '%s %s: %s\n' "$(date -u +%FT%TZ)" "$name" "$1" >&2; }

quote() { printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"; }

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
    command="env JAX_COORDINATOR_ADDRESS=$address:8476 $command"
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
  code=42
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
  if [ "$code" -ne 42 ] && ! taken; then
    say "the run has failed with exit code $code"
    exit "$code"
  fi
  say "preempted"
  delete
done
