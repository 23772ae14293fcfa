#!/usr/bin/env bash
# One machine, whatever it has: CPU, one GPU or several. Trains until done; a run that was stopped
# goes on from its last checkpoint, so the same command restarts it.
#
#   launch/local.sh configs/digits.py runs/digits [--config.seed=1 ...]
set -euo pipefail

if [ "$#" -lt 2 ]; then
  echo "usage: launch/local.sh CONFIG WORKDIR [FLAG ...]" >&2
  exit 2
fi
config=$1
workdir=$2
shift 2

cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" -m dbae_jax.main --config="$config" --workdir="$workdir" "$@"
