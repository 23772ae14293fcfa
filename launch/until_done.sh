#!/usr/bin/env bash
# Runs a command, and runs it again after a temporary failure: it was preempted (exit code 75), it
# lost another process of the run (76, 134), or it was killed (137, 143). Any other exit code is
# final.
# If this script gets TERM or INT (Ctrl-C), it sends TERM to the command, which saves a checkpoint,
# and exits with the command's exit code.
#
#   launch/until_done.sh COMMAND [ARGUMENT ...]
#
# RETRIES=100 is the largest number of restarts, PAUSE=10 the seconds before each of them.
set -uo pipefail

retries=${RETRIES:-100}
child=
stopped=
signalled=
trap 'stopped=1 signalled=1; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null' TERM INT

for ((attempt = 0; attempt <= retries; attempt++)); do
  "$@" &
  child=$!
  if [ -n "$stopped" ]; then kill -TERM "$child" 2>/dev/null; fi # it came before $child was set
  signalled=1
  while [ -n "$signalled" ]; do # a signal ends `wait` before the command ends
    signalled=
    wait "$child"
    code=$?
  done
  child=
  if [ -n "$stopped" ]; then exit "$code"; fi
  case $code in
    75 | 76 | 134 | 137 | 143) echo "The command exited with $code; starting it again." >&2 ;;
    *) exit "$code" ;;
  esac
  sleep "${PAUSE:-10}"
  if [ -n "$stopped" ]; then exit "$code"; fi
done
echo "Giving up after $retries restarts; the last exit code was $code. The same command resumes." >&2
exit "$code"
