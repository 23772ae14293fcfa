#!/usr/bin/env bash
# Trains on the GPUs of several nodes under SLURM, one process a node; submits itself.
# WORKDIR, the data and this folder must lie on a file system that all nodes share.
#
#   launch/slurm.sh NODES GPUS_PER_NODE CONFIG WORKDIR [FLAG ...]
#   SBATCH_PARTITION=a100 SBATCH_TIMELIMIT=24:00:00 launch/slurm.sh 4 8 configs/ffhq.py runs/ffhq
#
# Two minutes before its time is up, or when it is preempted, the job saves, and queues again.
set -euo pipefail

if [ -z "${DBAE_JAX_JOB:-}" ]; then
  if [ "$#" -lt 4 ]; then
    echo "usage: launch/slurm.sh NODES GPUS_PER_NODE CONFIG WORKDIR [FLAG ...]" >&2
    exit 2
  fi
  here=$(cd "$(dirname "$0")/.." && pwd)
  export DBAE_JAX_JOB=1
  exec sbatch --nodes="$1" --gpus-per-node="$2" --ntasks-per-node=1 --exclusive \
    --job-name=dbae_jax --requeue --signal=B:TERM@120 --open-mode=append --chdir="$here" \
    --export=ALL "$here/launch/slurm.sh" "$@"
fi

config=$3
workdir=$4
shift 4
export JAX_PLATFORMS=cuda
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$HOME/.cache/dbae_jax}
srun --kill-on-bad-exit=1 "${PYTHON:-python3}" -m dbae_jax.main \
  --config="$config" --workdir="$workdir" --config.model.dtype=bfloat16 "$@" &
step=$!
trap 'kill -TERM "$step" 2>/dev/null' TERM
code=0
wait "$step" || code=$?
while kill -0 "$step" 2>/dev/null; do # the trap ended the first wait
  code=0
  wait "$step" || code=$?
done
case $code in
  75 | 76 | 134 | 137 | 143) scontrol requeue "$SLURM_JOB_ID" ;;
esac
exit "$code"
