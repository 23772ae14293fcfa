#!/usr/bin/env bash
# Runs a command again while it ends for a reason that passes: a machine taken away (75), another
# process of the run lost (76, 134), or killed (137, 143). Any other end is the end.
# TERM or INT (Ctrl-C) to this script is the end too: the command gets a TERM, saves, and its code
# is handed on.
#
#   launch/until_done.sh COMMAND [ARGUMENT ...]      RETRIES=100, PAUSE=10 (seconds) by default
set -uo pipefail

retries=${RETRIES:-100}
child=
stopped=
signalled=
trap 'stopped=1 signalled=1; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null' TERM INT

for ((attempt = 0; attempt <= retries; attempt++)); do
  "$@" &
  child=$!
  if [ -n "$stopped" ]; then kill -TERM "$child" 2>/dev/null; fi # it came before the child's number
  signalled=1
  while [ -n "$signalled" ]; do # a signal ends a wait before the command ends
    signalled=
    wait "$child"
    code=$?
  done
  child=
  if [ -n "$stopped" ]; then exit "$code"; fi
  case $code in
    75 | 76 | 134 | 137 | 143) echo "ended with $code; starting again" >&2 ;;
    *) exit "$code" ;;
  esac
  sleep "${PAUSE:-10}"
  if [ -n "$stopped" ]; then exit "$code"; fi
done
echo "gave up after $retries restarts" >&2
exit "$code"
