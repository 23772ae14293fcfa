#!/usr/bin/env bash
# Trains on a TPU pod slice of Google Cloud: makes it if it is not there, copies this folder (as it
# is now, less what git ignores) to all its workers, and runs on all of them. A slice that was
# preempted is made anew, and the run goes on from its last checkpoint.
# Stopping this script may leave the run going on the slice; only deleting the slice surely ends it.
# Workers get an environment with Python 3.11 or newer by uv: the images of TPU VMs may have an older.
# WORKDIR and data_dir must be the same folders on all workers: a Filestore or gcsfuse mount.
#
#   launch/tpu_pod.sh NAME ZONE TYPE CONFIG WORKDIR [FLAG ...]
#   launch/tpu_pod.sh dbae us-east1-c v5litepod-16 configs/ffhq.py /mnt/runs/ffhq \
#     --config.data.data_dir=/mnt/data
#
# CREATE_FLAGS="--spot" and the like are handed to gcloud; RUNTIME names the software version.
# RETRIES=100 restarts, PAUSE=30 seconds apart; 5 failures in a row to make or feed a slice end it.
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

state() { # prints READY, CREATING, ..., or MISSING where there is no such slice
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
    python3 -m uv pip install --quiet --python \$HOME/.dbae_jax/bin/python -e '.[tpu]' &&
    JAX_COMPILATION_CACHE_DIR=\$HOME/.cache/dbae_jax \$HOME/.dbae_jax/bin/python -m dbae_jax.main $(
    printf '%q ' --config="$config" --workdir="$workdir" --config.model.dtype=bfloat16 "$@"
  )"
}

failed=0 # in a row
lost=0
while [ "$failed" -lt 5 ] && [ "$lost" -le "${RETRIES:-100}" ]; do
  code=75
  now=$(state) # any message of gcloud's but NOT_FOUND ends the script
  case $now in
    MISSING) if make_slice; then failed=0; else failed=$((failed + 1)); fi ;;
    PREEMPTED | TERMINATED) tpu delete "$name" || failed=$((failed + 1)) ;;
    CREATING | STARTING | RESTARTING | REIMAGING | REPAIRING | STOPPING | DELETING) ;; # wait
    READY)
      if tpu scp "$archive" "$name": --worker=all; then
        failed=0 code=0
        train "$@" || code=$?
        case $code in
          0 | 1 | 2) exit "$code" ;; # done, or something to mend
        esac
        lost=$((lost + 1))
        echo "ended with $code; starting again" >&2
      else
        failed=$((failed + 1))
      fi
      ;;
    *)
      echo "The slice $name is $now: start it or delete it, and try again." >&2
      exit 1
      ;;
  esac
  sleep "${PAUSE:-30}"
done
echo "gave up: $lost lost runs of $name, $failed failures in a row to make or feed it" >&2
exit "$code"
