#!/bin/sh
# Runs one sandbox for each line of stdin, four at a time. Responses are printed a line each.
#
#     seq 8 | batch.sh CAPSULECTL
set -eu
capsulectl=${1:-capsulectl}
xargs -P 4 -I LINE "$capsulectl" run -o json --exit-code-mode envelope --label line=LINE -- sh -c 'echo $(($1 * $1))' sh LINE
