#!/usr/bin/env bash
# Trains on a TPU pod slice of Google Cloud: makes it if it is not there, copies this folder to all
# its workers, runs on all of them, and makes it anew when it was preempted.
# WORKDIR and data_dir must be the same folders on all workers: a Filestore or gcsfuse mount.
#
#   launch/tpu_pod.sh NAME ZONE TYPE CONFIG WORKDIR [FLAG ...]
#   launch/tpu_pod.sh dbae us-east1-c v5litepod-16 configs/ffhq.py /mnt/runs/ffhq \
#     --config.data.data_dir=/mnt/data
#
# CREATE_FLAGS="--spot" and the like are handed to gcloud; RUNTIME names the software version.
set -euo pipefail

if [ "$#" -lt 5 ]; then
  echo "usage: launch/tpu_pod.sh NAME ZONE TYPE CONFIG WORKDIR [FLAG ...]" >&2
  exit 2
fi
name=$1
zone=$2
type=$3
config=$4
workdir=$5
shift 5

cd "$(dirname "$0")/.."
tpu() { gcloud compute tpus tpu-vm "$@" --zone="$zone" --quiet; }
state() { tpu describe "$name" --format='value(state)' 2>/dev/null || echo MISSING; }

make_slice() {
  local now
  now=$(state)
  if [ "$now" = READY ]; then return; fi
  if [ "$now" != MISSING ]; then tpu delete "$name"; fi
  # shellcheck disable=SC2086  # several flags in one variable
  tpu create "$name" --accelerator-type="$type" \
    --version="${RUNTIME:-v2-alpha-tpuv5-lite}" ${CREATE_FLAGS:-}
}

train() {
  git archive --format=tar.gz --output=/tmp/dbae_jax.tar.gz HEAD
  tpu scp /tmp/dbae_jax.tar.gz "$name": --worker=all
  tpu ssh "$name" --worker=all --command="
    mkdir -p dbae_jax && tar -xzf dbae_jax.tar.gz -C dbae_jax && cd dbae_jax &&
    pip install --quiet -e '.[tpu]' &&
    JAX_COMPILATION_CACHE_DIR=\$HOME/.cache/dbae_jax python3 -m dbae_jax.main $(
    printf '%q ' --config="$config" --workdir="$workdir" --config.model.dtype=bfloat16 "$@"
  )"
}

for ((attempt = 0; attempt <= ${RETRIES:-100}; attempt++)); do
  code=0
  if make_slice; then train "$@" || code=$?; else code=75; fi
  case $code in
    0 | 1 | 2) exit "$code" ;; # done, or something to mend
  esac
  echo "ended with $code; starting again" >&2
  sleep "${PAUSE:-30}"
done
echo "gave up after ${RETRIES:-100} restarts" >&2
exit "$code"
