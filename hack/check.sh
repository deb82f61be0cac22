#!/usr/bin/env bash
# What a change must pass besides its tests: generated files are fresh, the
# rules of hack/archtest hold, the other architecture builds, the portable
# packages stay portable, go.mod is tidy.
set -euo pipefail
cd "$(dirname "$0")/.."
tags=urfave_cli_no_docs

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

echo "linux/arm64"
CGO_ENABLED=0 GOARCH=arm64 go build -tags "$tags,noseccomp" -o /dev/null ./cmd/...
CGO_ENABLED=0 GOARCH=arm64 go vet -tags "$tags,noseccomp" ./cmd/... ./runtime/... ./shim/... ./supervisor/...

echo "portable packages"
portable=(./spec/... ./runtime/plan/... ./shim/bundle/...)
CGO_ENABLED=0 GOOS=darwin GOARCH=arm64 go vet "${portable[@]}"

echo "darwin and freebsd"
for target in darwin/amd64 darwin/arm64 freebsd/amd64; do
  CGO_ENABLED=0 GOOS=${target%/*} GOARCH=${target#*/} go build -tags "$tags" -o /dev/null ./cmd/capsulectl ./cmd/capsule-shim
  CGO_ENABLED=0 GOOS=${target%/*} GOARCH=${target#*/} go vet -tags "$tags" ./cmd/capsule-shim ./shim/... ./supervisor
done
CGO_ENABLED=0 GOOS=darwin GOARCH=arm64 go test -c -tags "$tags" -o /dev/null ./shim

echo "go.mod"
go mod verify >/dev/null
go mod tidy -diff
