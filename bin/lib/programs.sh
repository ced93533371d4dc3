#!/usr/bin/env bash
# bin/lib/programs.sh: runs the test programs of standard input, a line "FOLDER PROGRAM" each, one after the other.
# All of them run, also after a failure; none at all is one. They end with this script.

set -o errexit -o nounset -o pipefail

status=0 programs=0
while read -r folder program; do
  programs=$((programs + 1))
  printf '\n     Running %s (%s)\n' "$program" "${folder##*/}"
  (cd -- "$folder" && exec setpriv --pdeathsig TERM "$program" </dev/null) || status=1
done
if ((programs == 0)); then
  printf 'There are no test programs to run.\n' >&2
  exit 1
fi
exit "$status"
