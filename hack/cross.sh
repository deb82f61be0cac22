#!/usr/bin/env bash
# Builds and vets what this machine is not.
#
#   hack/cross.sh systems   darwin, freebsd and windows, and linux/arm64 without C
#   hack/cross.sh arm64     linux/arm64 with libseccomp, run by qemu as far as it goes
#   hack/cross.sh noseccomp this system without C: built, vetted, tested
#
# What qemu cannot show: it translates one process and hands system calls on, so
# namespaces, filters and cgroups would be those of the host's architecture. The
# tests that build sandboxes need a real arm64 machine (.github/workflows/test.yml).
set -euo pipefail
cd "$(dirname "$0")/.."
tags=urfave_cli_no_docs
ours=(./cmd/... ./spec/... ./runtime/... ./shim/... ./supervisor/...)

systems() {
  echo "linux/arm64"
  CGO_ENABLED=0 GOARCH=arm64 go build -tags "$tags,noseccomp" -o /dev/null ./cmd/...
  CGO_ENABLED=0 GOARCH=arm64 go vet -tags "$tags,noseccomp" "${ours[@]}"
  # There, every package compiles, and its tests do.
  local target
  for target in darwin/amd64 darwin/arm64 freebsd/amd64; do
    echo "$target"
    CGO_ENABLED=0 GOOS=${target%/*} GOARCH=${target#*/} go build -tags "$tags" -o /dev/null ./cmd/...
    CGO_ENABLED=0 GOOS=${target%/*} GOARCH=${target#*/} go vet -tags "$tags" "${ours[@]}"
  done
  # The programs, which answer E2008; packages of the daemon are for unix.
  for target in windows/amd64 windows/arm64; do
    echo "$target"
    CGO_ENABLED=0 GOOS=${target%/*} GOARCH=${target#*/} go build -tags "$tags" -o /dev/null ./cmd/...
    CGO_ENABLED=0 GOOS=${target%/*} GOARCH=${target#*/} go vet -tags "$tags" ./cmd/... ./spec/... ./runtime/plan/...
  done
  local arch
  for arch in amd64 arm64; do
    echo "darwin/$arch, tests of what runs there"
    CGO_ENABLED=0 GOOS=darwin GOARCH=$arch go test -c -tags "$tags" -o /dev/null \
      ./cmd/capsulectl ./spec/... ./shim ./shim/process ./supervisor/config ./supervisor/policy | { grep -v 'no test files' || true; }
  done
}

arm64() {
  hack/deps.sh build arm64
  # shellcheck source=/dev/null
  source <(hack/deps.sh arm64-environment)
  local out
  out=$(mktemp -d)
  # shellcheck disable=SC2064
  trap "rm -rf '$out'" EXIT
  CGO_ENABLED=0 GOARCH=arm64 go build -tags "$tags" -o "$out/" ./cmd/capsulectl ./cmd/capsule-shim ./cmd/capsuled
  CGO_ENABLED=1 GOARCH=arm64 go build -tags "$tags,osusergo,netgo" -ldflags '-linkmode external -extldflags -static' -o "$out/" ./cmd/capsule-seccomp
  CGO_ENABLED=1 GOARCH=arm64 go vet -tags "$tags" ./runtime/seccomp/... ./cmd/capsule-seccomp
  echo "the programs under qemu"
  qemu-aarch64-static "$out/capsulectl" version | grep -F linux/arm64
  qemu-aarch64-static "$out/capsuled" --version
  qemu-aarch64-static "$out/capsulectl" schema request | cmp - docs/request.schema.json
  qemu-aarch64-static "$out/capsulectl" seccomp show default >"$out/profile.json"
  # The filter that arm64 compiles for itself is the one compiled for it here.
  qemu-aarch64-static "$out/capsule-seccomp" compile <"$out/profile.json" >"$out/there.bpf"
  (unset CC PKG_CONFIG_LIBDIR CGO_CFLAGS CGO_LDFLAGS && go run -tags "$tags" ./cmd/capsule-seccomp compile arm64) <"$out/profile.json" >"$out/here.bpf"
  test -s "$out/there.bpf"
  cmp "$out/there.bpf" "$out/here.bpf"
  echo "tests that need no sandbox under qemu"
  CGO_ENABLED=0 GOARCH=arm64 go test -tags "$tags,noseccomp" -short -exec qemu-aarch64-static \
    ./spec/... ./runtime/plan ./runtime/seccomp/bpf ./runtime/seccomp/calls ./shim/bundle ./supervisor/config ./supervisor/policy
}

noseccomp() {
  local out
  out=$(mktemp -d)
  # shellcheck disable=SC2064
  trap "rm -rf '$out'" EXIT
  make --no-print-directory build NOSECCOMP=1 BIN="$out/bin"
  CGO_ENABLED=0 go vet -tags "$tags,noseccomp" ./...
  CGO_ENABLED=0 go test -tags "$tags,noseccomp" ./runtime/... ./cmd/capsule-seccomp
  # A filter that was asked for is refused, and nothing else is.
  local status=0
  "$out/bin/capsulectl" run -- true 2>"$out/log" || status=$?
  if [ $status = 0 ] || ! grep -q E2003 "$out/log"; then
    echo "a build without libseccomp did not refuse the default filter with E2003:" >&2
    cat "$out/log" >&2
    exit 1
  fi
  echo '{"command":["echo","without"],"isolation":{"allow_degraded":["seccomp"]}}' |
    "$out/bin/capsulectl" run --json | grep -q '"stdout": *"without'
}

case ${1:-} in
  systems | arm64 | noseccomp) "$1" ;;
  *) echo "usage: cross.sh systems|arm64|noseccomp" >&2; exit 2 ;;
esac
