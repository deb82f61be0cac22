#!/usr/bin/env bash
# Installs what a target of the Makefile needs and the machine lacks, on Debian
# 12, Ubuntu 24.04 and their relatives. Says nothing and takes no time when
# nothing is missing.
#
#   hack/deps.sh [build] [demo] [bench] [pack] [arm64] [debtest] [peers]    default: build
#   hack/deps.sh arm64-environment    shell lines that cross-build with C for arm64
#
# Go: go.mod names the version. Any Go from 1.21 on fetches that version by
# itself. Where there is no Go, or an older one, the distribution's golang-go
# is used once, to fetch the toolchain as what it is, a module, through the
# ordinary module proxy and its checksum database. It then lives in
# ${XDG_CACHE_HOME:-~/.cache}/capsule/go, where the Makefile finds it.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${XDG_CACHE_HOME:-$HOME/.cache}/capsule
missing=()

# want COMMAND-OR-GLOB PACKAGE: remember the package when the command, or every
# file that the glob could name, is absent.
want() {
  case $1 in
    /*) compgen -G "$1" >/dev/null || missing+=("$2") ;;
    *) command -v "$1" >/dev/null || missing+=("$2") ;;
  esac
}

# as_root COMMAND...: run it as root, or say what to run.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    echo "deps: run as root: $*" >&2
    return 1
  fi
}

apt() {
  if ! command -v apt-get >/dev/null; then
    echo "deps: install with this system's package manager: $*" >&2
    return 1
  fi
  echo "deps: installing $*" >&2
  local log
  log=$(mktemp)
  # The package lists of a fresh image are empty, hence the second attempt.
  if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >"$log" 2>&1; then
    if ! { as_root apt-get update && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; } >"$log" 2>&1; then
      tail -n 20 "$log" >&2
      rm -f "$log"
      return 1
    fi
  fi
  rm -f "$log"
}

# go_is_recent: true when some go on the PATH, or ours, is 1.21 or newer and so
# obeys the version in go.mod.
go_is_recent() {
  local v
  v=$(cd / && PATH=$cache/go/bin:$PATH GOTOOLCHAIN=local go version 2>/dev/null) || return 1
  [[ $v =~ go1\.([0-9]+) ]] && [ "${BASH_REMATCH[1]}" -ge 21 ]
}

fetch_go() {
  local version arch dir
  version=$(awk '$1 == "toolchain" { t = substr($2, 3) } $1 == "go" { g = $2 } END { print t ? t : g }' go.mod)
  case $(uname -m) in
    x86_64) arch=amd64 ;;
    aarch64) arch=arm64 ;;
    *) echo "deps: install Go $version; there is no toolchain for $(uname -m) here" >&2; return 1 ;;
  esac
  command -v go >/dev/null || apt golang-go ca-certificates
  go_is_recent && return
  echo "deps: fetching Go $version" >&2
  (
    cd /
    GO111MODULE=on GOFLAGS=-modcacherw GOMODCACHE=$cache/toolchains \
      go mod download "golang.org/toolchain@v0.0.1-go$version.linux-$arch"
  )
  dir=$cache/toolchains/golang.org/toolchain@v0.0.1-go$version.linux-$arch
  # A module carries neither execute bits nor nested go.mod files; the go
  # command mends both when it switches by itself.
  find "$dir/bin" "$dir/pkg/tool" -type f -exec chmod +x {} +
  local sub
  for sub in src src/cmd; do
    [ ! -e "$dir/$sub/_go.mod" ] || mv "$dir/$sub/_go.mod" "$dir/$sub/go.mod"
  done
  ln -sfn "$dir" "$cache/go"
}

# fetch_go_judge: a peer of `make bench` that no distribution has. It is built
# from a copy of its module, as go install also wants the list of its versions.
# Without it the bench does without.
fetch_go_judge() {
  local version=v1.8.5 dir work
  dir=$cache/go-judge/$version
  [ ! -x "$dir/go-judge" ] || return 0
  echo "deps: building go-judge $version for the comparison" >&2
  work=$(mktemp -d)
  if (cd / && GOFLAGS=-modcacherw GOMODCACHE=$work/mod go mod download "github.com/criyle/go-judge@$version" &&
    cd "$work/mod/github.com/criyle/go-judge@$version" && GOFLAGS=-modcacherw GOMODCACHE=$work/mod CGO_ENABLED=0 go build -buildvcs=false -o "$work/go-judge" ./cmd/go-judge) >"$work/log" 2>&1; then
    mkdir -p "$dir"
    mv "$work/go-judge" "$dir/go-judge"
  else
    echo "deps: it could not be built, so it is left out: $(tail -n 1 "$work/log")" >&2
  fi
  rm -rf "$work"
}

# The libraries of arm64 are unpacked beside the machine's own, so that its package
# manager keeps one architecture.
sysroot=$cache/sysroot/arm64

# fetch_arm64: libseccomp for arm64, from this distribution's packages.
fetch_arm64() {
  [ ! -e "$sysroot/usr/lib/aarch64-linux-gnu/libseccomp.a" ] || return 0
  echo "deps: fetching libseccomp for arm64" >&2
  local work options
  work=$(mktemp -d)
  mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial"
  touch "$work/status"
  options=(-o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=
    -o Dir::State="$work/state" -o Dir::State::status="$work/status" -o Dir::Cache="$work/cache")
  if ! (cd "$work" && apt-get "${options[@]}" update && apt-get "${options[@]}" download libseccomp-dev libseccomp2) >"$work/log" 2>&1; then
    tail -n 5 "$work/log" >&2
    echo "deps: there is no libseccomp for arm64 among this system's packages" >&2
    rm -rf "$work"
    return 1
  fi
  mkdir -p "$work/root"
  local deb
  for deb in "$work"/*.deb; do dpkg-deb -x "$deb" "$work/root"; done
  sed -i "s#^prefix=.*#prefix=$sysroot/usr#" "$work/root/usr/lib/aarch64-linux-gnu/pkgconfig/libseccomp.pc"
  mkdir -p "${sysroot%/*}"
  rm -rf "$sysroot"
  mv "$work/root" "$sysroot"
  rm -rf "$work"
}

if [ "$*" = arm64-environment ]; then
  if ! command -v aarch64-linux-gnu-gcc >/dev/null || [ ! -e "$sysroot/usr/lib/aarch64-linux-gnu/libseccomp.a" ]; then
    exit 1
  fi
  # Go keeps what pkg-config said of a directory with the object that it caches, but
  # finds that object by its flags: they name the directory too.
  echo "export CC=aarch64-linux-gnu-gcc PKG_CONFIG_LIBDIR='$sysroot/usr/lib/aarch64-linux-gnu/pkgconfig'" \
    "CGO_CFLAGS='-O2 -g -I$sysroot/usr/include' CGO_LDFLAGS='-O2 -g -L$sysroot/usr/lib/aarch64-linux-gnu'"
  exit
fi

for group in "${@:-build}"; do
  case $group in
    build)
      want make make
      want git git
      want gcc gcc
      want pkg-config pkg-config
      want '/usr/include/stdlib.h' libc6-dev
      want '/usr/include/seccomp.h' libseccomp-dev
      want '/usr/lib*/*/libseccomp.a' libseccomp-dev
      want '/etc/ssl/certs/ca-certificates.crt' ca-certificates
      ;;
    demo) want python3 python3 ;;
    bench)
      want bwrap bubblewrap
      want crun crun
      want runc runc
      want gcc gcc
      want '/usr/lib*/*/libc.a' libc6-dev
      ;;
    pack)
      want file file
      want gzip gzip
      want dpkg-deb dpkg
      ;;
    peers) # whose bundles and views hack/e2e compares, and what examples of the docs use
      want jq jq
      want node nodejs
      want crun crun
      want runc runc
      want umoci umoci
      want podman podman
      want newuidmap uidmap
      want containerd containerd
      want ctr containerd
      want busybox busybox-static
      ;;
    debtest)
      want mmdebstrap mmdebstrap
      want /usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring
      ;;
    arm64)
      want aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
      want /usr/aarch64-linux-gnu/lib/libc.a libc6-dev-arm64-cross
      want qemu-aarch64-static qemu-user-static
      ;;
    *) echo "deps: unknown group $group" >&2; exit 2 ;;
  esac
done

if [ ${#missing[@]} -gt 0 ]; then
  mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
  apt "${missing[@]}"
fi
if [[ " ${*:-build} " == *" build "* ]] && ! go_is_recent; then
  fetch_go
fi
if [[ " $* " == *" bench "* ]]; then
  fetch_go_judge
fi
if [[ " $* " == *" arm64 "* ]]; then
  fetch_arm64
fi
