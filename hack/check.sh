#!/usr/bin/env bash
# What a change must pass besides its tests: generated files are fresh, the
# rules of hack/archtest hold, other architectures and systems build, go.mod is tidy.
set -euo pipefail
cd "$(dirname "$0")/.."

echo "generated files"
snapshot() { git ls-files -z --cached --others --exclude-standard | xargs -0r sha256sum 2>/dev/null | sort -k 2 || true; }
before=$(snapshot)
hack/generate.sh
if stale=$(diff <(echo "$before") <(snapshot) | awk '/^[<>]/ { print $3 }' | sort -u) && [ -n "$stale" ]; then
  echo "stale, now regenerated; commit them:" >&2
  echo "$stale" >&2
  exit 1
fi

echo "rules of the tree"
go test ./hack/archtest

hack/cross.sh systems

echo "go.mod"
go mod verify >/dev/null
go mod tidy -diff
