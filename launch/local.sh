#!/usr/bin/env bash
# Trains on the CPU of this machine. When started again, it resumes from the last checkpoint.
#
#   launch/local.sh CONFIG WORKDIR [FLAG ...]
#   launch/local.sh configs/digits.py runs/digits --config.seed=1
#
# dbae_jax must be installed in the active environment, or in the one of PYTHON=/path/to/bin/python.
# A relative WORKDIR or CONFIG is relative to the current folder. If CONFIG does not exist there, it
# is relative to this repository, as are relative paths in FLAGs (data_dir).
set -euo pipefail

if [ "$#" -lt 2 ]; then
  echo "usage: launch/local.sh CONFIG WORKDIR [FLAG ...]" >&2
  exit 2
fi
absolute() { case $1 in /* | *://*) echo "$1" ;; *) echo "$PWD/$1" ;; esac }
config=$1
if [ -e "${config%%:*}" ]; then config=$(absolute "$config"); fi # FILE.py or FILE.py:ARGUMENT
workdir=$(absolute "$2")
shift 2

cd "$(dirname "$0")/.."
export JAX_PLATFORMS=cpu
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$HOME/.cache/dbae_jax}
exec launch/until_done.sh "${PYTHON:-python3}" -m dbae_jax.main \
  --config="$config" --workdir="$workdir" "$@"
