#!/usr/bin/env bash
# gofmt, go vet for every build variant, staticcheck (a tool of go.mod).
set -euo pipefail
cd "$(dirname "$0")/.."
tags=urfave_cli_no_docs

echo "gofmt"
bad=$(git ls-files -z --cached --others --exclude-standard '*.go' | xargs -0r gofmt -l)
[ -z "$bad" ] || { echo "run make fmt: $bad" >&2; exit 1; }
echo "go vet"
go vet -tags "$tags" ./...
echo "go vet, noseccomp"
CGO_ENABLED=0 go vet -tags "$tags,noseccomp" ./...
echo "go vet, systemd"
go vet -tags "$tags,systemd" ./hack/units
echo "staticcheck"
go tool staticcheck -tags "$tags" ./...
