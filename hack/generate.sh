#!/usr/bin/env bash
# Rebuilds everything that is generated: stubs from .proto files, documents and
# schemas from the tables in the code.
set -euo pipefail
cd "$(dirname "$0")/.."

mapfile -t protos < <(git ls-files --cached --others --exclude-standard 'shim/*.proto' 'supervisor/*.proto')
[ ${#protos[@]} -eq 0 ] || go run ./hack/protogen "${protos[@]}"
# Constants and tables that stand beside the package they serve.
go generate ./...
go run ./hack/gendocs
