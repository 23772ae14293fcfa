#!/usr/bin/env bash
# Trains on the CPU of this machine, and goes on from the last checkpoint when started again.
#
#   launch/local.sh CONFIG WORKDIR [FLAG ...]
#   launch/local.sh configs/digits.py runs/digits --config.seed=1
set -euo pipefail

if [ "$#" -lt 2 ]; then
  echo "usage: launch/local.sh CONFIG WORKDIR [FLAG ...]" >&2
  exit 2
fi
config=$1
workdir=$2
shift 2

cd "$(dirname "$0")/.."
export JAX_PLATFORMS=cpu
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$HOME/.cache/dbae_jax}
exec launch/until_done.sh "${PYTHON:-python3}" -m dbae_jax.main \
  --config="$config" --workdir="$workdir" "$@"
