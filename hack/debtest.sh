#!/usr/bin/env bash
# Installs, uses, upgrades, removes and purges a Debian package in a root of its
# own, as root. Nothing of it reaches this machine's packages.
#
#   hack/debtest.sh FILE.deb [ROOT]
#
# The root is Debian's minimal set (mmdebstrap) unless one is given, of which a
# copy is used.
set -euo pipefail
deb=$(realpath "${1:?give a package}")
given=${2:-}
[ "$(id -u)" = 0 ] || { echo "debtest: run as root" >&2; exit 1; }
if [ -z "${CAPSULE_DEBTEST_INSIDE:-}" ]; then
  # Mounts end with the namespace, whatever happens.
  exec env CAPSULE_DEBTEST_INSIDE=1 unshare --mount --propagation private "$0" "$@"
fi

root=$(mktemp -d)
trap 'umount -R "$root" 2>/dev/null; rm -rf --one-file-system "$root"' EXIT
# Of its own file system, so that nothing is left on this machine's.
mount -t tmpfs -o mode=755,size=2g none "$root"
if [ -n "$given" ]; then
  cp -a "$given/." "$root/"
else
  mmdebstrap --quiet --variant=essential --include=systemd bookworm "$root"
fi
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=755 none "$root/run"
mkdir "$root/old"
cp "$deb" "$root/capsule.deb"
export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# Not by chroot alone: the kernel makes no user namespaces for who is in one.
inside() {
  # shellcheck disable=SC2016
  unshare --mount --propagation private sh -c 'cd "$0" && pivot_root . old && umount -l old && exec chroot . "$@"' "$root" "$@"
}
fail() { echo "debtest: $*" >&2; exit 1; }
listing() { (cd "$root" && find etc usr var opt -xdev ! -path 'var/lib/dpkg/*' ! -path 'var/cache/*' ! -path 'var/log/*' | sort); }

listing >"$root/before"
echo "install"
inside dpkg --install /capsule.deb
[ "$(inside dpkg-query -W -f '${Status}' capsule)" = "install ok installed" ] || fail "not installed"
said=$(inside dpkg --verify capsule)
[ -z "$said" ] || fail "files differ from the package: $said"
inside getent group capsule >/dev/null || fail "no group capsule"
# The minimal set has no /bin/kill, which the package recommends; keys of later
# versions of systemd are in the unit on purpose.
said=$(inside systemd-analyze verify /usr/lib/systemd/system/capsuled.service /usr/lib/systemd/system/capsuled.socket 2>&1 | grep -v "/bin/kill\|Unknown key '\(RestartSteps\|RestartMaxDelaySec\|DelegateSubgroup\)'" || true)
[ -z "$said" ] || fail "units: $said"
inside systemctl is-enabled capsuled.socket | grep -qx enabled || fail "the socket is not enabled"
[ "$(stat -c %a "$root/var/lib/capsule")" = 700 ] || fail "/var/lib/capsule is open to others"

echo "use"
inside capsulectl version
inside capsule-kube version
inside containerd-shim-capsule-v2 -v
for p in capsule-oci install.sh daemonset.yaml seccomp/strict.json; do
  [ -e "$root/usr/bin/$p" ] || [ -e "$root/usr/share/capsule/kubernetes/$p" ] || fail "no $p"
done
inside capsulectl config check /etc/capsule/config.toml
[ "$(inside capsulectl run -- echo from a sandbox)" = "from a sandbox" ] || fail "capsulectl run"
said=$(echo '{"command":["id","-u"],"isolation":{"seccomp":"default"}}' | inside capsulectl run --json) || true
[[ $said == *'"status":"success"'* ]] || fail "capsulectl run --json: $said"
inside bash -c 'source /usr/share/bash-completion/completions/capsulectl && complete -p capsulectl' || fail "completion"
if [ -e "$root/etc/apparmor.d/abi/4.0" ]; then
  [ -e "$root/etc/apparmor.d/capsule-shim" ] || fail "no AppArmor profile"
else
  [ ! -e "$root/etc/apparmor.d/capsule-shim" ] || fail "an AppArmor profile that this AppArmor cannot read"
fi

echo "upgrade"
echo '# mine' >>"$root/etc/capsule/config.toml"
inside dpkg --install /capsule.deb </dev/null
grep -q '# mine' "$root/etc/capsule/config.toml" || fail "the upgrade has lost a changed configuration"
inside capsulectl run -- true

echo "remove"
inside dpkg --remove capsule
[ ! -e "$root/usr/bin/capsulectl" ] || fail "capsulectl is still there"
[ -e "$root/etc/capsule/config.toml" ] || fail "removal has removed the configuration"
[ ! -e "$root/etc/systemd/system/sockets.target.wants/capsuled.socket" ] || fail "the socket is still enabled"

echo "purge"
inside dpkg --purge capsule
listing >"$root/after"
# The group stays, as Debian has it: its number may still own files.
if left=$(diff "$root/before" "$root/after" | grep '^>' | grep -v '/etc/\(group\|gshadow\|passwd\|shadow\|.pwd.lock\)' | grep -v ' etc/\(group-\|gshadow-\|passwd-\|shadow-\|\.pwd\.lock\|group\|gshadow\)$'); then
  fail "left behind: $left"
fi
[ ! -e "$root/run/capsule" ] || fail "left: $(find "$root/run/capsule")"
echo "debtest: installed, used, upgraded, removed and purged: $(basename "$deb")"
