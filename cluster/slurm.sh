#!/usr/bin/env bash
#SBATCH --job-name=sadcl
#SBATCH --nodes=2
#SBATCH --exclusive
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=sadcl-%j.log
# One study on the nodes of one Slurm job, from the root of a checkout on a disk that all nodes share:
#
#   sbatch cluster/slurm.sh python experiments/tune_coco.py --data-root /shared/coco --storage "$PWD/runs" --yes
#
# Five minutes before the time is up, the job is ended and queued again where that is allowed; then it resumes.
# Activate the environment that has sadcl before you submit; sbatch passes it to the job.
set -euo pipefail

[ $# -gt 0 ] || { echo "usage: sbatch cluster/slurm.sh python experiments/tune_coco.py ..." >&2 && exit 2; }
[ -n "${SLURM_JOB_ID:-}" ] || { echo "error: submit this script with sbatch; it does not run in a shell." >&2 && exit 2; }

# A token for this job alone, in a file that only you can read. Arguments are visible to others in the process list.
token=${SLURM_SUBMIT_DIR:?}/.ray-token-$SLURM_JOB_ID
(umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$token")
trap 'rm -f "$token"' EXIT
unset RAY_ADDRESS RAY_AUTH_TOKEN
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$token RAY_USAGE_STATS_ENABLED=0
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=600 # nodes of one job may start minutes apart; the default is 30 s

hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
address=${hosts%%$'\n'*}:6379 # of the first host; --exclusive, because Ray refuses a node that runs another Ray
srun --ntasks-per-node=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --kill-on-bad-exit=1 \
  ray symmetric-run --address "$address" --min-nodes "$SLURM_JOB_NUM_NODES" --num-cpus="${SLURM_CPUS_PER_TASK:-1}" \
  --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --disable-usage-stats -- env RAY_ADDRESS="$address" "$@" &
study=$!

requeue() {
  kill -TERM "$study" 2>/dev/null || true # srun passes the signal on to all nodes
  wait "$study" || true
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
}
trap requeue USR1
wait "$study"
