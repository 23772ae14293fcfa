#!/usr/bin/env bash
# Trains on the GPUs of several nodes under SLURM; submits itself. One process a node drives all of
# the node's GPUs, so that they share one reader of the data.
# WORKDIR, the data and this folder must lie on a file system that all nodes share.
#
#   launch/slurm.sh NODES GPUS_PER_NODE CONFIG WORKDIR [FLAG ...]
#   SBATCH_PARTITION=a100 SBATCH_TIMELIMIT=24:00:00 launch/slurm.sh 4 8 configs/ffhq.py runs/ffhq
#
# Needs dbae_jax in the environment that is active, or in that of PYTHON=/path/to/bin/python.
# A relative WORKDIR is taken from where you stand, and so is CONFIG where there is such a file; else
# CONFIG is taken from this repository, and so are relative paths in FLAGs (data_dir).
#
# Two minutes before its time is up, or when it is preempted, the job saves, and queues again, at
# most RETRIES=100 times.
set -euo pipefail

if [ -z "${DBAE_JAX_JOB:-}" ]; then
  if [ "$#" -lt 4 ]; then
    echo "usage: launch/slurm.sh NODES GPUS_PER_NODE CONFIG WORKDIR [FLAG ...]" >&2
    exit 2
  fi
  here=$(cd "$(dirname "$0")/.." && pwd)
  absolute() { case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac }
  config=$3
  if [ -e "${config%%:*}" ]; then config=$(absolute "$config"); fi # FILE.py or FILE.py:ARGUMENT
  export DBAE_JAX_JOB=1
  exec sbatch --nodes="$1" --gpus-per-node="$2" --ntasks-per-node=1 --exclusive \
    --job-name=dbae_jax --requeue --signal=B:TERM@120 --open-mode=append --chdir="$here" \
    --export=ALL "$here/launch/slurm.sh" "$1" "$2" "$config" "$(absolute "$4")" "${@:5}"
fi

# Without this list jax takes one GPU a process under SLURM, the one of the process's local number.
JAX_LOCAL_DEVICE_IDS=$(seq -s, 0 $(($2 - 1)))
export JAX_LOCAL_DEVICE_IDS JAX_PLATFORMS=cuda
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$HOME/.cache/dbae_jax}
# A TERM to srun would have it kill the processes at once; scancel hands the TERM to them.
trap 'signalled=1; scancel --signal=TERM "$SLURM_JOB_ID" || true' TERM
srun --kill-on-bad-exit=1 "${PYTHON:-python3}" -m dbae_jax.main \
  --config="$3" --workdir="$4" --config.model.dtype=bfloat16 "${@:5}" &
signalled=1
while [ -n "$signalled" ]; do # a signal ends a wait before the processes end
  signalled=
  code=0
  wait "$!" || code=$?
done

restarts=${SLURM_RESTART_COUNT:-0}
case $code in
  75 | 76 | 134 | 137 | 143)
    if [ "$restarts" -lt "${RETRIES:-100}" ]; then
      scontrol requeue "$SLURM_JOB_ID"
    else
      echo "gave up after $restarts restarts" >&2
    fi
    ;;
esac
exit "$code"
