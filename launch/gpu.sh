#!/usr/bin/env bash
# Trains on all GPUs of this machine (or those of CUDA_VISIBLE_DEVICES), in bfloat16.
#
#   launch/gpu.sh CONFIG WORKDIR [FLAG ...]
#   launch/gpu.sh configs/ffhq.py runs/ffhq --config.data.data_dir=/data
set -euo pipefail

if [ "$#" -lt 2 ]; then
  echo "usage: launch/gpu.sh CONFIG WORKDIR [FLAG ...]" >&2
  exit 2
fi
config=$1
workdir=$2
shift 2

cd "$(dirname "$0")/.."
export JAX_PLATFORMS=cuda # rather stop than train on the CPU
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$HOME/.cache/dbae_jax}
exec launch/until_done.sh "${PYTHON:-python3}" -m dbae_jax.main \
  --config="$config" --workdir="$workdir" --config.model.dtype=bfloat16 "$@"
