#!/usr/bin/env bash
# Packs the release archives, and checks them.
#
#   VERSION=v COMMIT=hash DIST=dir hack/release.sh build|check
#
# One archive for each architecture and a SHA256SUMS. Archives are reproducible:
# the same commit and Go version give the same bytes. capsule-seccomp holds
# libseccomp and needs a C compiler for its architecture: where that is absent
# the archive says so in its name ("-noseccomp") and a filter is refused with
# E2003 rather than left out silently.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${VERSION:?}" "${COMMIT:?}" "${DIST:?}"
tags=urfave_cli_no_docs
# Every program but the one with C in it.
pure=()
for main in cmd/*/main.go; do
  dir=./${main%/main.go}
  [ "$dir" = ./cmd/capsule-seccomp ] || pure+=("$dir")
done
epoch=$(git log -1 --format=%ct 2>/dev/null || echo 0)

# compiler ARCH: a C compiler that can link libseccomp for it, or nothing.
compiler() {
  local native cc lib
  native=$(go env GOHOSTARCH)
  case $1 in
    amd64) lib=x86_64-linux-gnu ;;
    arm64) lib=aarch64-linux-gnu ;;
  esac
  cc=gcc
  [ "$1" = "$native" ] || cc=$lib-gcc
  if command -v "$cc" >/dev/null && [ -e "/usr/lib/$lib/libseccomp.a" ]; then echo "$cc"; fi
}

# pack ARCH DIR: build into DIR and pack; prints the archive's name.
pack() {
  local arch=$1 dir=$2 cc name ldflags="-s -w -X main.version=$VERSION -X main.commit=$COMMIT"
  cc=$(compiler "$arch")
  name=capsule-$VERSION-linux-$arch
  [ -n "$cc" ] || name=$name-noseccomp
  rm -rf "${dir:?}/$name"
  mkdir -p "$dir/$name"
  CGO_ENABLED=0 GOARCH=$arch go build -trimpath -buildvcs=false -tags $tags -ldflags "$ldflags" \
    -o "$dir/$name/" "${pure[@]}"
  if [ "$arch" = amd64 ]; then # see supervisor/spare
    CGO_ENABLED=0 GOARCH=$arch go build -trimpath -buildvcs=false -tags $tags -ldflags "$ldflags -E capsule_entry" \
      -o "$dir/$name/" ./cmd/capsulectl
  fi
  if [ -n "$cc" ]; then
    CGO_ENABLED=1 CC=$cc GOARCH=$arch go build -trimpath -buildvcs=false -tags "$tags,osusergo,netgo" \
      -ldflags "$ldflags -linkmode external -extldflags -static" -o "$dir/$name/" ./cmd/capsule-seccomp
  else
    CGO_ENABLED=0 GOARCH=$arch go build -trimpath -buildvcs=false -tags "$tags,noseccomp" -ldflags "$ldflags" \
      -o "$dir/$name/" ./cmd/capsule-seccomp
  fi
  cp LICENSE README.md "$dir/$name/"
  tar -C "$dir" --sort=name --mtime="@$epoch" --owner=0 --group=0 --numeric-owner --mode=u+rwX,go+rX,go-w \
    -cf - "$name" | gzip -9n >"$dir/$name.tar.gz"
  rm -rf "${dir:?}/$name"
  echo "$name.tar.gz"
}

case ${1:-} in
  build)
    rm -rf "$DIST"
    mkdir -p "$DIST"
    for arch in amd64 arm64; do pack $arch "$DIST"; done
    (cd "$DIST" && sha256sum ./*.tar.gz >SHA256SUMS)
    ;;
  check)
    (cd "$DIST" && sha256sum --quiet -c SHA256SUMS)
    again=$(mktemp -d)
    trap 'rm -rf "$again"' EXIT
    for arch in amd64 arm64; do
      name=$(pack $arch "$again")
      cmp "$DIST/$name" "$again/$name"
      tar -C "$again" -xzf "$again/$name"
      for b in "$again/${name%.tar.gz}"/caps*; do
        file "$b" | grep -q 'statically linked' || { echo "$b is not static" >&2; exit 1; }
      done
      if [ "$arch" = "$(go env GOHOSTARCH)" ]; then
        "$again/${name%.tar.gz}/capsulectl" --version | grep -qF "$VERSION"
      fi
      echo "$name: static, reproducible"
    done
    ;;
  *) echo "usage: release.sh build|check" >&2; exit 2 ;;
esac
