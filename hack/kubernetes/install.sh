#!/bin/sh
# Puts capsule on a node of Kubernetes, or takes it away: what the DaemonSet runs, as root.
#
#   install.sh install    programs, system call filters, containerd's configuration
#   install.sh remove     the same, away; running pods of the class keep what they run
#
# Run it again whenever you like: what is as it should be is left alone, and containerd
# is restarted only when its configuration has changed. Running pods go on meanwhile.
#
#   FROM      programs and filters, as the image has them (default /opt/capsule)
#   HOST      the node's root (default /host)
#   BIN       a directory on containerd's PATH (default /usr/local/bin)
#   CONFIG    containerd's configuration (default /etc/containerd/config.toml)
#   KUBELET   the kubelet's root (default /var/lib/kubelet)
#   RESTART   restarts containerd (default: systemctl in the namespaces of process 1)
set -eu
: "${FROM:=/opt/capsule}" "${HOST:=/host}" "${BIN:=/usr/local/bin}" "${CONFIG:=/etc/containerd/config.toml}" "${KUBELET:=/var/lib/kubelet}"
: "${RESTART:=nsenter --target 1 --mount --uts --ipc --net --pid -- systemctl restart containerd}"
programs="containerd-shim-capsule-v2 capsule-seccomp capsule-oci"
begin="# capsule: begin, written by its installer"
end="# capsule: end"
config=$HOST$CONFIG
dropin=${config%/*}/conf.d/capsule.toml
changed=no

fail() {
  echo "install.sh: $1" >&2
  exit 1
}

# put MODE FILE: replace FILE by stdin in one step, where it differs. A program that runs
# keeps the file that it runs.
put() {
  mkdir -p "${2%/*}"
  cat >"$2.capsule-new"
  if cmp -s "$2.capsule-new" "$2"; then
    rm -f "$2.capsule-new"
    return 1
  fi
  chmod "$1" "$2.capsule-new"
  mv -f "$2.capsule-new" "$2"
  echo "wrote $2"
}

# without FILE: FILE without what we have written, on stdout.
without() {
  sed "/^$begin\$/,/^$end\$/d" "$1"
}

# version is that of the configuration's format. containerd 2.0 writes 3, 2.3 writes 4, and
# each reads all older ones, in what is imported too.
version() {
  v=$(sed -n 's/^[[:space:]]*version[[:space:]]*=[[:space:]]*\([0-9]*\).*/\1/p' "$config" | head -n 1)
  echo "${v:-1}"
}

# fragment PLUGIN: the runtime, and the annotation that asks for a verdict. The kubelet has
# one driver of control groups for all runtimes, so it is the one that the others have.
fragment() {
  echo "[plugins.\"$1\".containerd.runtimes.capsule]"
  echo '  runtime_type = "io.containerd.capsule.v2"'
  echo '  pod_annotations = ["run.capsule.verdict"]'
  if without "$config" | grep -q '^[[:space:]]*SystemdCgroup[[:space:]]*=[[:space:]]*true'; then
    echo "[plugins.\"$1\".containerd.runtimes.capsule.options]"
    echo '  SystemdCgroup = true'
  fi
}

# configure writes the fragment. From version 3 on what is imported is merged into a plugin's
# section; before that an import takes the place of the whole section, so the fragment
# stands in the file itself.
configure() {
  [ -f "$config" ] || fail "$config is missing: write one with containerd config default, or name it by CONFIG"
  case $(version) in
  3 | 4)
    { echo "version = 3"; fragment io.containerd.cri.v1.runtime; } | put 0644 "$dropin" && changed=yes
    if ! grep -q '^[[:space:]]*imports[[:space:]]*=.*conf\.d/\*\.toml' "$config"; then
      ! grep -q '^[[:space:]]*imports[[:space:]]*=' "$config" ||
        fail "$config imports other files: add \"${CONFIG%/*}/conf.d/*.toml\" to its imports"
      { echo "$begin"; echo "imports = [\"${CONFIG%/*}/conf.d/*.toml\"]"; echo "$end"; cat "$config"; } | put 0644 "$config" && changed=yes
    fi
    ;;
  2)
    ! without "$config" | grep -q 'containerd\.runtimes\.capsule\]' || fail "$config has a runtime capsule already: take it out"
    { without "$config"; echo "$begin"; fragment io.containerd.grpc.v1.cri; echo "$end"; } | put 0644 "$config" && changed=yes
    ;;
  1) fail "$config is of version 1: containerd config migrate writes a newer one" ;;
  *) fail "$config is of version $(version), which is newer than this installer" ;;
  esac
  return 0
}

restart() {
  if [ "$changed" = yes ]; then
    echo "containerd is restarted"
    $RESTART
  fi
}

case ${1:-} in
install)
  for p in $programs; do
    put 0755 "$HOST$BIN/$p" <"$FROM/bin/$p" || true
  done
  for f in "$FROM"/seccomp/*.json; do
    put 0644 "$HOST$KUBELET/seccomp/capsule/${f##*/}" <"$f" || true
  done
  configure
  restart
  ;;
remove)
  if [ -f "$config" ]; then
    without "$config" | put 0644 "$config" && changed=yes
  fi
  if [ -f "$dropin" ]; then
    rm -f "$dropin"
    rmdir "${dropin%/*}" 2>/dev/null || true # others may have files there
    changed=yes
  fi
  restart
  for p in $programs; do rm -f "$HOST$BIN/$p"; done
  rm -rf "$HOST$KUBELET/seccomp/capsule"
  ;;
*) fail "say install or remove" ;;
esac
