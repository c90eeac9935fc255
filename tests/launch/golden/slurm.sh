#!/usr/bin/env bash
#SBATCH --job-name=row-lstm
#SBATCH --output=row-lstm-%j.log
#SBATCH --open-mode=append
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=16
#SBATCH --partition=preemptible
#SBATCH --time=12:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
# Trains on a Slurm cluster until the run ends. Written by `rnngen launch --to=slurm`; start it with
# sbatch. A job that is preempted or near its time limit saves, and goes back into the queue.
set -euo pipefail

# A preemption's SIGTERM may reach this script, too: it waits for srun all the same.
trap : TERM

first="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)"
export JAX_COORDINATOR_ADDRESS="$first:8476" JAX_NUM_PROCESSES="$SLURM_JOB_NUM_NODES"

# What each node runs.
IFS= read -r -d '' remote <<'REMOTE' || true
set -euo pipefail
eval 'source /shared/venv/bin/activate' </dev/null
export JAX_PROCESS_ID="$SLURM_PROCID"
export JAX_PLATFORMS=cuda,cpu JAX_LOCAL_DEVICE_IDS=0,1,2,3,4,5,6,7
exec rnngen train --config=row_lstm:mnist --config.training.steps=2000 --config.model.cell=gru --workdir=/shared/runs/row_lstm
REMOTE

code=0
# Heartbeats end the other tasks soon after one has failed; --wait ends those that hang.
srun --ntasks-per-node=1 --wait=300 --cpus-per-task=16 bash -c "$remote" || code=$?
if [ "$code" -eq 42 ]; then
  scontrol requeue "$SLURM_JOB_ID" || echo "the job could not be queued again" >&2
fi
exit "$code"
