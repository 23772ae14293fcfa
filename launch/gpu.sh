#!/usr/bin/env bash
# Trains on all GPUs of this machine, or on those in CUDA_VISIBLE_DEVICES, in bfloat16. When started
# again, it resumes from the last checkpoint.
#
#   launch/gpu.sh CONFIG WORKDIR [FLAG ...]
#   launch/gpu.sh configs/ffhq.py runs/ffhq --config.data.data_dir=/data
#
# dbae_jax must be installed in the active environment, or in the one of PYTHON=/path/to/bin/python.
# A relative WORKDIR or CONFIG is relative to the current folder. If CONFIG does not exist there, it
# is relative to this repository, as are relative paths in FLAGs (data_dir).
#
# With --config.train.deterministic=True, a resumed run ends with the same parameters, bit for bit.
set -euo pipefail

if [ "$#" -lt 2 ]; then
  echo "usage: launch/gpu.sh CONFIG WORKDIR [FLAG ...]" >&2
  exit 2
fi
absolute() { case $1 in /* | *://*) echo "$1" ;; *) echo "$PWD/$1" ;; esac }
config=$1
if [ -e "${config%%:*}" ]; then config=$(absolute "$config"); fi # FILE.py or FILE.py:ARGUMENT
workdir=$(absolute "$2")
shift 2

cd "$(dirname "$0")/.."
export JAX_PLATFORMS=cuda,cpu # fail without a GPU; the CPU draws the initial weights
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$HOME/.cache/dbae_jax}
# For several GPUs; docs/how-to/resume_and_clusters.md has the reasons. Flags in XLA_FLAGS come
# later and win.
export XLA_FLAGS="--xla_gpu_enable_latency_hiding_scheduler=true \
--xla_gpu_all_reduce_combine_threshold_bytes=134217728 ${XLA_FLAGS:-}"
exec launch/until_done.sh "${PYTHON:-python3}" -m dbae_jax.main \
  --config="$config" --workdir="$workdir" --config.model.dtype=bfloat16 "$@"
