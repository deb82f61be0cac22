#!/usr/bin/env bash
# Packs a release, and checks it.
#
#   VERSION=v COMMIT=hash DIST=dir hack/release.sh build|check
#
# DIST gets, for linux/amd64 and linux/arm64, an archive, a Debian package and a
# bill of materials; for darwin, which has capsulectl and capsule-kube, archives and
# bills; and a SHA256SUMS of all of them. Everything is reproducible: the same commit, Go
# and libseccomp give the same bytes. capsule-seccomp holds libseccomp and needs a
# C compiler for its architecture: where that is absent the names say so
# ("-noseccomp") and a filter is refused with E2003 rather than left out silently.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${VERSION:?}" "${COMMIT:?}" "${DIST:?}"
tags=urfave_cli_no_docs
targets=(linux/amd64 linux/arm64 darwin/arm64 darwin/amd64)
# Every program but the one with C in it.
pure=()
for main in cmd/*/main.go; do
  dir=./${main%/main.go}
  [ "$dir" = ./cmd/capsule-seccomp ] || pure+=("$dir")
done
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH

# environment ARCH: shell lines with a C compiler that links libseccomp for it; or
# it fails.
environment() {
  if [ "$1" = "$(go env GOHOSTARCH)" ]; then
    compgen -G "/usr/lib*/*/libseccomp.a" >/dev/null && echo "export CC=gcc"
  elif [ "$1" = arm64 ]; then
    hack/deps.sh arm64-environment
  else
    return 1
  fi
}

# programs OS ARCH DIR: build the programs into DIR.
programs() {
  # -buildid=: the linker's own depends on what the C compiler left in objects, even
  # where nothing of that is linked.
  local os=$1 arch=$2 dir=$3 setup ldflags="-s -w -buildid= -X main.version=$VERSION -X main.commit=$COMMIT"
  local build=(go build -trimpath -buildvcs=false)
  if [ "$os" != linux ]; then # see docs/platforms.md
    CGO_ENABLED=0 GOOS=$os GOARCH=$arch "${build[@]}" -tags $tags -ldflags "$ldflags" -o "$dir/" ./cmd/capsulectl ./cmd/capsule-kube
    return
  fi
  CGO_ENABLED=0 GOOS=linux GOARCH=$arch "${build[@]}" -tags $tags -ldflags "$ldflags" -o "$dir/" "${pure[@]}"
  if [ "$arch" = amd64 ]; then # see supervisor/spare
    CGO_ENABLED=0 GOOS=linux GOARCH=$arch "${build[@]}" -tags $tags -ldflags "$ldflags -E capsule_entry" -o "$dir/" ./cmd/capsulectl
  fi
  if setup=$(environment "$arch"); then
    (
      eval "$setup"
      CGO_ENABLED=1 GOOS=linux GOARCH=$arch "${build[@]}" -tags "$tags,osusergo,netgo" \
        -ldflags "$ldflags -linkmode external -extldflags -static" -o "$dir/" ./cmd/capsule-seccomp
    )
  else
    CGO_ENABLED=0 GOOS=linux GOARCH=$arch "${build[@]}" -tags "$tags,noseccomp" -ldflags "$ldflags" -o "$dir/" ./cmd/capsule-seccomp
  fi
}

# bill ARCH PROGRAM...: the bill of materials of programs, on stdout.
bill() {
  local arch=$1 setup library=()
  shift
  if [[ " $* " == *capsule-seccomp* ]] && setup=$(environment "$arch"); then
    library=(-library "libseccomp@$(eval "$setup" && pkg-config --modversion libseccomp)")
  fi
  go run ./hack/sbom -name capsule -version "$VERSION" ${library[@]+"${library[@]}"} "$@"
}

# share OS DIR: what goes beside the programs, made by capsulectl of this host.
share() {
  local os=$1 dir=$2 p
  mkdir -p "$dir/completion" "$dir/man"
  "$native" completion bash >"$dir/completion/capsulectl.bash"
  "$native" completion zsh >"$dir/completion/_capsulectl"
  "$native" completion fish >"$dir/completion/capsulectl.fish"
  cp docs/man/*.[18] "$dir/man/"
  [ "$os" = linux ] || rm "$dir"/man/*.8
  "$native" config default >"$dir/config.toml"
  cp LICENSE README.md docs/CHANGELOG.md "$dir/"
  if [ "$os" = linux ]; then
    cp -r cmd/capsuled/systemd "$dir/systemd"
    cp cmd/capsule-shim/apparmor/capsule-shim "$dir/apparmor-capsule-shim"
    cp hack/deb/sysusers.conf hack/deb/tmpfiles.conf "$dir/systemd/"
    mkdir -p "$dir/kubernetes/seccomp"
    cp hack/kubernetes/{install.sh,Containerfile,*.yaml} "$dir/kubernetes/"
    for p in default strict network; do "$native" seccomp show "$p" >"$dir/kubernetes/seccomp/$p.json"; done
  fi
}

# archive DIR NAME: pack DIR/NAME as DIR/NAME.tar.gz.
archive() {
  tar -C "$1" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=u+rwX,go+rX,go-w \
    -cf - "$2" | gzip -9n >"$1/$2.tar.gz"
}

# debian_version: VERSION as dpkg orders it. Commits without a tag come before 0.1.
debian_version() {
  local v=${VERSION#v}
  case $v in
    [0-9]*) [[ $v == *[!0-9.]* && $v != *.* ]] || { echo "${v//-/+}"; return; } ;;
  esac
  echo "0~git$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d%H%M%S)+${v//-/+}"
}

# package ARCH DIR NAME: pack the files of DIR/NAME as the Debian package DIR/NAME.deb.
package() {
  local arch=$1 dir=$2 name=$3 from=$2/$3 root=$2/$3.root p
  mkdir -p "$root"/{DEBIAN,etc/capsule/conf.d,usr/bin,usr/lib/systemd/system,usr/lib/systemd/user,usr/lib/sysusers.d,usr/lib/tmpfiles.d} \
    "$root"/usr/share/{man/man1,man/man8,bash-completion/completions,zsh/vendor-completions,fish/vendor_completions.d,doc/capsule,capsule/apparmor}
  for p in "$from"/*capsule*; do install -m 755 "$p" "$root/usr/bin/"; done
  for p in capsuled.service capsuled.socket; do
    sed 's#/usr/local/bin/#/usr/bin/#; s#/etc/systemd/system/#/usr/lib/systemd/system/#' "$from/share/systemd/$p" >"$root/usr/lib/systemd/system/$p"
    sed 's#%h/.local/bin/#/usr/bin/#; s#~/.local/bin#/usr/bin#' "$from/share/systemd/user/$p" >"$root/usr/lib/systemd/user/$p"
  done
  cp "$from/share/systemd/sysusers.conf" "$root/usr/lib/sysusers.d/capsule.conf"
  cp "$from/share/systemd/tmpfiles.conf" "$root/usr/lib/tmpfiles.d/capsule.conf"
  cp "$from/share/apparmor-capsule-shim" "$root/usr/share/capsule/apparmor/capsule-shim"
  cp -r "$from/share/kubernetes" "$root/usr/share/capsule/"
  cp "$from/share/config.toml" "$root/etc/capsule/config.toml"
  cp "$from/share/completion/capsulectl.bash" "$root/usr/share/bash-completion/completions/capsulectl"
  cp "$from/share/completion/_capsulectl" "$root/usr/share/zsh/vendor-completions/"
  cp "$from/share/completion/capsulectl.fish" "$root/usr/share/fish/vendor_completions.d/"
  for p in "$from"/share/man/*.[18]; do gzip -9nc "$p" >"$root/usr/share/man/man${p##*.}/${p##*/}.gz"; done
  cp docs/*.md docs/*.json "$root/usr/share/doc/capsule/"
  gzip -9n "$root/usr/share/doc/capsule/CHANGELOG.md"
  cp LICENSE "$root/usr/share/doc/capsule/copyright"
  cp "$dir/$name.cdx.json" "$root/usr/share/doc/capsule/sbom.cdx.json"
  sed -e "s/@VERSION@/$(debian_version)/" -e "s/@ARCH@/$arch/" -e "s/@SIZE@/$(du -sk --apparent-size "$root/usr" | cut -f 1)/" hack/deb/control >"$root/DEBIAN/control"
  echo /etc/capsule/config.toml >"$root/DEBIAN/conffiles"
  (cd "$root" && find etc usr -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
  for p in postinst prerm postrm; do install -m 755 "hack/deb/$p" "$root/DEBIAN/"; done
  chmod -R u+rwX,go+rX,go-w "$root"
  dpkg-deb --root-owner-group -Zxz --build "$root" "$dir/$name.deb" >/dev/null
  rm -r "$root"
}

# pack DIR: make everything below DIR.
pack() {
  local dir=$1 os arch name target
  # What the packages say of themselves is said by a capsulectl of this host.
  CGO_ENABLED=0 go build -trimpath -buildvcs=false -tags $tags -o "$dir/native/" ./cmd/capsulectl
  native=$dir/native/capsulectl
  for target in "${targets[@]}"; do
    os=${target%/*} arch=${target#*/}
    name=capsule-$VERSION-$os-$arch
    if [ "$os" = linux ] && ! environment "$arch" >/dev/null; then name=$name-noseccomp; fi
    mkdir -p "$dir/$name/share"
    programs "$os" "$arch" "$dir/$name"
    bill "$arch" "$dir/$name"/*capsule* >"$dir/$name.cdx.json"
    share "$os" "$dir/$name/share"
    mv "$dir/$name/share"/{LICENSE,README.md} "$dir/$name/"
    archive "$dir" "$name"
    if [ "$os" = linux ]; then package "$arch" "$dir" "$name"; fi
    rm -r "${dir:?}/$name"
    echo "$name"
  done
  rm -r "$dir/native"
  (cd "$dir" && sha256sum -- *.tar.gz *.deb *.json >SHA256SUMS)
}

# part FILE: where an archive has what comes of a file of the tree.
part() {
  case $1 in
    cmd/*) basename "${1%/main.go}" ;;
    hack/kubernetes/*) echo "share/kubernetes/${1##*/}" ;;
  esac
}

# examine DIR: every archive has what it should, and programs are static.
examine() {
  local dir=$1 a b p work
  work=$(mktemp -d "$dir/unpacked.XXXXXX")
  for a in "$dir"/*.tar.gz; do
    tar -C "$work" -xzf "$a"
    for b in "$work/$(basename "$a" .tar.gz)"/caps*; do
      case $a in
        *-linux-*) file "$b" | grep 'statically linked' | grep -vq 'not stripped' || { echo "$b is not static and stripped" >&2; return 1; } ;;
        *) file "$b" | grep -q 'Mach-O 64-bit' || { echo "$b is no program of darwin" >&2; return 1; } ;;
      esac
    done
    case $a in
      *-linux-*) for p in cmd/*/main.go hack/kubernetes/install.sh; do [ -e "$work/$(basename "$a" .tar.gz)/$(part "$p")" ] || { echo "$a has no $(part "$p")" >&2; return 1; }; done ;;
    esac
    case $a in
      *-linux-"$(go env GOHOSTARCH)"*) "$work/$(basename "$a" .tar.gz)/capsulectl" --version | grep -qF "$VERSION" ;;
    esac
  done
  rm -r "$work"
}

case ${1:-} in
  build)
    rm -rf "$DIST"
    mkdir -p "$DIST"
    pack "$DIST"
    ;;
  check)
    (cd "$DIST" && sha256sum --quiet -c SHA256SUMS)
    examine "$DIST"
    # Another directory and an empty cache: nothing of the first build is used.
    again=$(mktemp -d)
    trap 'chmod -R u+w "$again" && rm -rf "$again"' EXIT
    mkdir "$again/tree" "$again/dist"
    git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$again/tree"
    (cd "$again/tree" && SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH GOCACHE=$again/cache DIST=$again/dist hack/release.sh again >/dev/null)
    diff "$DIST/SHA256SUMS" "$again/dist/SHA256SUMS" || { echo "built twice, these differ" >&2; exit 1; }
    echo "built twice, the same: $(wc -l <"$DIST/SHA256SUMS") files"
    ;;
  again) pack "$DIST" ;;
  *) echo "usage: release.sh build|check" >&2; exit 2 ;;
esac
