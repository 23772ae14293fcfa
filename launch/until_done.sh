#!/usr/bin/env bash
# Runs a command again while it ends for a reason that passes: a machine taken away (75), another
# process of the run lost (76, 134), or killed (137, 143). Any other end is the end.
#
#   launch/until_done.sh COMMAND [ARGUMENT ...]      RETRIES=100, PAUSE=10 (seconds) by default
set -uo pipefail

retries=${RETRIES:-100}
for ((attempt = 0; attempt <= retries; attempt++)); do
  "$@"
  code=$?
  case $code in
    75 | 76 | 134 | 137 | 143) echo "ended with $code; starting again" >&2 ;;
    *) exit "$code" ;;
  esac
  sleep "${PAUSE:-10}"
done
echo "gave up after $retries restarts" >&2
exit "$code"
