#!/usr/bin/env bash
# Trains on a TPU pod slice of Google Cloud, in bfloat16. The script creates the slice if it does not
# exist, copies this repository (without files that git ignores) to all workers, and trains there. It
# creates a preempted slice again, and training resumes from the last checkpoint.
# If you stop this script, training may continue on the slice; delete the slice to end it.
# uv installs Python 3.11 or newer on the workers, because images of TPU VMs may have an older one.
# WORKDIR and data_dir must be the same for all workers: in a bucket, or in a Filestore or gcsfuse mount.
#
#   launch/tpu_pod.sh NAME ZONE TYPE CONFIG WORKDIR [FLAG ...]
#   launch/tpu_pod.sh dbae us-east1-c v5litepod-16 configs/ffhq.py gs://BUCKET/runs/ffhq \
#     --config.data.data_dir=gs://BUCKET/data
#
# CREATE_FLAGS are flags of "gcloud ... create", such as --spot; RUNTIME is the software version.
# The script gives up after RETRIES=100 restarts, PAUSE=30 seconds apart, or if it fails 5 times in a
# row to create the slice or to copy the files.
set -euo pipefail

if [ "$#" -lt 5 ]; then
  echo "usage: launch/tpu_pod.sh NAME ZONE TYPE CONFIG WORKDIR [FLAG ...]" >&2
  exit 2
fi
name=$1 zone=$2 type=$3 config=$4 workdir=$5
shift 5

cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
archive=$scratch/dbae_jax.tar.gz
git ls-files -coz --exclude-standard | tar --null -T - -czf "$archive"

tpu() { gcloud compute tpus tpu-vm "$@" --zone="$zone" --quiet; }

state() { # prints READY, CREATING, ..., or MISSING if the slice does not exist
  if tpu describe "$name" --format='value(state)' 2>"$scratch/error"; then return; fi
  if grep -q NOT_FOUND "$scratch/error"; then echo MISSING && return; fi
  cat "$scratch/error" >&2
  return 1
}

make_slice() {
  # shellcheck disable=SC2086  # several flags in one variable
  tpu create "$name" --accelerator-type="$type" \
    --version="${RUNTIME:-v2-alpha-tpuv5-lite}" ${CREATE_FLAGS:-}
}

train() {
  tpu ssh "$name" --worker=all --command="
    mkdir -p dbae_jax && tar -xzf dbae_jax.tar.gz -C dbae_jax && cd dbae_jax &&
    python3 -m pip install --quiet uv &&
    python3 -m uv venv --quiet --allow-existing --python '>=3.11' \$HOME/.dbae_jax &&
    python3 -m uv pip install --quiet --python \$HOME/.dbae_jax/bin/python -e '.[tpu,cloud]' &&
    JAX_COMPILATION_CACHE_DIR=\$HOME/.cache/dbae_jax \$HOME/.dbae_jax/bin/python -m dbae_jax.main $(
    printf '%q ' --config="$config" --workdir="$workdir" --config.model.dtype=bfloat16 "$@"
  )"
}

failed=0 # failures in a row to create the slice or to copy the files
lost=0 # runs that ended with a temporary failure
while [ "$failed" -lt 5 ] && [ "$lost" -le "${RETRIES:-100}" ]; do
  code=75
  now=$(state) # any error of gcloud except NOT_FOUND ends the script
  case $now in
    MISSING) if make_slice; then failed=0; else failed=$((failed + 1)); fi ;;
    PREEMPTED | TERMINATED) tpu delete "$name" || failed=$((failed + 1)) ;;
    CREATING | STARTING | RESTARTING | REIMAGING | REPAIRING | STOPPING | DELETING) ;; # wait
    READY)
      if tpu scp "$archive" "$name": --worker=all; then
        failed=0 code=0
        train "$@" || code=$?
        case $code in
          0 | 1 | 2) exit "$code" ;; # done, or an error that the user has to fix
        esac
        lost=$((lost + 1))
        echo "Training exited with $code; starting it again." >&2
      else
        failed=$((failed + 1))
      fi
      ;;
    *)
      echo "The slice $name is $now: start or delete it, then run this script again." >&2
      exit 1
      ;;
  esac
  sleep "${PAUSE:-30}"
done
echo "Giving up on $name: the training was lost $lost times; to create the slice or to copy the files" \
  "failed $failed times in a row. The same command resumes the run." >&2
exit "$code"
