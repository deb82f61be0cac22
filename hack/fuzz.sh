#!/usr/bin/env bash
# Runs every fuzz test of the tree, one after the other. Minimising what is
# new takes most of the time otherwise.
#
#   hack/fuzz.sh [TIME-EACH]
set -euo pipefail
cd "$(dirname "$0")/.."
each=${1:-20s}

# Those that start sandboxes build the programs otherwise, in each of their workers.
[ ! -x bin/capsule-seccomp ] || export CAPSULE_BIN=$PWD/bin

log=$(mktemp)
trap 'rm -f "$log"' EXIT

# time_is_over: the failure in the log is the end of the time and nothing else. Go before
# 1.27 now and then takes the one for the other (go.dev/issue/75804); what a fuzz test finds
# is told in more words, and its input is written down.
time_is_over() {
  [ "$(awk '/^FAIL/ { said = 0 } said { print $0 } /^--- FAIL: / { said = 1 }' "$log")" = "    context deadline exceeded" ]
}

found=0
while IFS=: read -r file name; do
  found=1
  echo "$name in $(dirname "$file"), $each"
  go test -tags urfave_cli_no_docs -run '^$' -fuzz "^$name\$" -fuzztime "$each" -fuzzminimizetime 50x "./$(dirname "$file")" 2>&1 | tee "$log" || time_is_over
done < <(git grep --untracked -oE '^func Fuzz[A-Za-z0-9_]+' -- '*_test.go' | sed 's/:func /:/')
[ $found = 1 ] || { echo "no fuzz tests found" >&2; exit 1; }
