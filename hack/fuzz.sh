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

found=0
while IFS=: read -r file name; do
  found=1
  echo "$name in $(dirname "$file"), $each"
  go test -tags urfave_cli_no_docs -run '^$' -fuzz "^$name\$" -fuzztime "$each" -fuzzminimizetime 50x "./$(dirname "$file")"
done < <(git grep --untracked -oE '^func Fuzz[A-Za-z0-9_]+' -- '*_test.go' | sed 's/:func /:/')
[ $found = 1 ] || { echo "no fuzz tests found" >&2; exit 1; }
