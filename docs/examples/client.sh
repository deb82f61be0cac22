#!/bin/sh
# Runs a command through the JSON mode and branches on the verdict. Needs nothing but a shell, whose
# echo may read backslashes, so that printf prints the document;
# with jq, read fields with it instead of with case.
#
#     client.sh CAPSULECTL
set -eu
capsulectl=${1:-capsulectl}
response=$(echo '{"command":["sh","-c","echo 42"]}' | "$capsulectl" run --json --exit-code-mode envelope)
case $response in
*'"status":"success"'*) printf 'it ran: %s\n' "$response" ;;
*'"status":"timeout"'* | *'"status":"killed"'*) printf 'a limit ended it: %s\n' "$response" ;;
*) printf 'capsule refused or failed: %s\n' "$response"; exit 1 ;;
esac
