#!/bin/sh
# A step of a CI job that runs the code of a change that nobody has read yet: the tree is there
# read-only, the result comes out through one writable directory, and there is no network.
#
#     ci_step.sh CAPSULECTL TREE OUT
set -eu
capsulectl=${1:-capsulectl}
tree=${2:-$PWD}
out=${3:-$PWD/out}
mkdir -p "$out"
status=0
"$capsulectl" run --timeout 2m --memory 512M --max-pids 200 \
    --bind "$tree:/workspace/tree:ro" --bind "$out:/workspace/out:rw" -w /workspace/tree \
    -- sh -c 'ls | wc -l >../out/report && echo tested' || status=$?
case $status in
0) echo "passed; the report is in $out" ;;
124) echo "::error::the tests took longer than two minutes" ;;
125) echo "::error::the sandbox could not be made; see capsulectl doctor" ;;
137) echo "::error::the tests were killed, most likely for memory" ;;
*) echo "::error::the tests failed with $status" ;;
esac
exit "$status"
