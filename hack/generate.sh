#!/usr/bin/env bash
# Rebuilds everything that is generated: stubs from .proto files, documents and
# schemas from the tables in the code.
set -euo pipefail
cd "$(dirname "$0")/.."

mapfile -t protos < <(git ls-files --cached --others --exclude-standard 'shim/*.proto' 'supervisor/*.proto')
[ ${#protos[@]} -eq 0 ] || go run ./hack/protogen "${protos[@]}"
# Constants and tables that stand beside the package they serve.
go generate ./...
# The help texts, which cli.md and the pages of man are made of.
go test -count=1 -tags urfave_cli_no_docs ./cmd/capsulectl -run '^TestTexts$|^TestEveryVerbIsDocumented$' -update >/dev/null
go run ./hack/gendocs
go run ./hack/conformance -docs docs/conformance.md
