#!/usr/bin/env bash
# Trains on the CPU of this machine, and goes on from the last checkpoint when started again.
#
#   launch/local.sh CONFIG WORKDIR [FLAG ...]
#   launch/local.sh configs/digits.py runs/digits --config.seed=1
#
# Needs dbae_jax in the environment that is active, or in that of PYTHON=/path/to/bin/python.
# A relative WORKDIR is taken from where you stand, and so is CONFIG where there is such a file; else
# CONFIG is taken from this repository, and so are relative paths in FLAGs (data_dir).
set -euo pipefail

if [ "$#" -lt 2 ]; then
  echo "usage: launch/local.sh CONFIG WORKDIR [FLAG ...]" >&2
  exit 2
fi
absolute() { case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac }
config=$1
if [ -e "${config%%:*}" ]; then config=$(absolute "$config"); fi # FILE.py or FILE.py:ARGUMENT
workdir=$(absolute "$2")
shift 2

cd "$(dirname "$0")/.."
export JAX_PLATFORMS=cpu
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$HOME/.cache/dbae_jax}
exec launch/until_done.sh "${PYTHON:-python3}" -m dbae_jax.main \
  --config="$config" --workdir="$workdir" "$@"
