#!/usr/bin/env bash
# Trains on the GPUs of several nodes under SLURM, in bfloat16; the script submits itself. Each node
# runs one process for all of its GPUs, so that they share one data loader.
# WORKDIR, the data and this repository must be on a file system that all nodes share.
#
#   launch/slurm.sh NODES GPUS_PER_NODE CONFIG WORKDIR [FLAG ...]
#   SBATCH_PARTITION=a100 SBATCH_TIMELIMIT=24:00:00 launch/slurm.sh 4 8 configs/ffhq.py runs/ffhq
#
# dbae_jax must be installed in the active environment, or in the one of PYTHON=/path/to/bin/python.
# A relative WORKDIR or CONFIG is relative to the current folder. If CONFIG does not exist there, it
# is relative to this repository, as are relative paths in FLAGs (data_dir).
#
# Two minutes before its time limit, or when it is preempted, the job saves a checkpoint and queues
# again, at most RETRIES=100 times.
#
# With --config.train.deterministic=True, a resumed run ends with the same parameters, bit for bit.
set -euo pipefail

if [ -z "${DBAE_JAX_JOB:-}" ]; then
  if [ "$#" -lt 4 ]; then
    echo "usage: launch/slurm.sh NODES GPUS_PER_NODE CONFIG WORKDIR [FLAG ...]" >&2
    exit 2
  fi
  here=$(cd "$(dirname "$0")/.." && pwd)
  absolute() { case $1 in /* | *://*) echo "$1" ;; *) echo "$PWD/$1" ;; esac }
  config=$3
  if [ -e "${config%%:*}" ]; then config=$(absolute "$config"); fi # FILE.py or FILE.py:ARGUMENT
  export DBAE_JAX_JOB=1
  exec sbatch --nodes="$1" --gpus-per-node="$2" --ntasks-per-node=1 --exclusive \
    --job-name=dbae_jax --requeue --signal=B:TERM@120 --open-mode=append --chdir="$here" \
    --export=ALL "$here/launch/slurm.sh" "$1" "$2" "$config" "$(absolute "$4")" "${@:5}"
fi

# Without this list, jax under SLURM uses one GPU per process, by the local rank of the process.
JAX_LOCAL_DEVICE_IDS=$(seq -s, 0 $(($2 - 1)))
export JAX_LOCAL_DEVICE_IDS JAX_PLATFORMS=cuda,cpu
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$HOME/.cache/dbae_jax}
# For several GPUs; docs/how-to/resume_and_clusters.md has the reasons. Flags in XLA_FLAGS come
# later and win.
export XLA_FLAGS="--xla_gpu_enable_latency_hiding_scheduler=true \
--xla_gpu_all_reduce_combine_threshold_bytes=134217728 ${XLA_FLAGS:-}"
# srun would kill the processes at once if it got the TERM; scancel sends it to the processes.
trap 'signalled=1; scancel --signal=TERM "$SLURM_JOB_ID" || true' TERM
srun --kill-on-bad-exit=1 "${PYTHON:-python3}" -m dbae_jax.main \
  --config="$3" --workdir="$4" --config.model.dtype=bfloat16 "${@:5}" &
signalled=1
while [ -n "$signalled" ]; do # a signal ends `wait` before the processes end
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
      echo "Giving up after $restarts restarts. The same command resumes the run." >&2
    fi
    ;;
esac
exit "$code"
