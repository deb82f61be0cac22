#!/usr/bin/env bash
# Runs the tests that meet the kernel in throw-away virtual machines: other
# kernels than this one, a unified cgroup v2 tree, root and an unprivileged
# user. Every test binary is compiled here; each machine boots once and runs
# them all.
#
#   hack/vmtest.sh [-p "PATTERN..."] [KERNEL:USER[@DIR|@-DIR]...]
#
# A machine with @DIR runs the packages below this directory alone, one with @-DIR
# all others: the work for one user may be split so that two machines are busy until
# the end. A machine systemd:USER has a real systemd, and runs hack/units alone.
#
# The machines come from a runner with the command line
#   run [--systemd] [--kernel K] --user U --cwd DIR --mem MIB --timeout S -- COMMAND...
# CAPSULE_VMTEST names it (or its directory); otherwise a vmtest/run in a
# directory beside this checkout is used. Without one nothing is run here and
# the message says so.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=${CAPSULE_VMTEST_PACKAGES:-./runtime/... ./shim/... ./supervisor/... ./cmd/... ./hack/e2e/... ./hack/walls ./hack/escape}
if [ "${1:-}" = -p ]; then
  packages=$2
  shift 2
fi
configs=("$@")
[ ${#configs[@]} -gt 0 ] || read -ra configs <<<"${CAPSULE_VMTEST_CONFIGS:-6.1:root 6.1:nobody 6.12:root 6.12:nobody systemd:root}"
# Creating a process costs 30 to 140 times as much in an emulated machine.
seconds=${CAPSULE_VMTEST_TIMEOUT:-1500}
tags=${TAGS:-urfave_cli_no_docs}

runner=${CAPSULE_VMTEST:-$(compgen -G '../*/vmtest/run' | head -n 1 || true)}
[ ! -d "$runner" ] || runner=$runner/run
if [ -z "$runner" ] || [ ! -x "$runner" ]; then
  echo "virtual machines: no runner (CAPSULE_VMTEST), so other kernels were not tested"
  exit 0
fi
export VMTEST_CACHE=${VMTEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/capsule-vmtest}
mkdir -p "$VMTEST_CACHE"

# build DIR LIST TAGS: a test binary beside what stands beside its source.
build() {
  local rel=$1
  mkdir -p "$work/$rel"
  go test -c -tags "$3" -o "$work/$rel/kernel.test" "./$rel" >&2
  git ls-files -z --cached --others --exclude-standard -- "$rel" | { grep -zv '\.go$' || true; } | xargs -0r cp --parents -t "$work"
  [ ! -e "$work/$rel/kernel.test" ] || echo "$rel" >>"$work/$2"
}

work=$(mktemp -d "${TMPDIR:-/tmp}/capsule-vm.XXXXXX")
# Every machine is a process group of its own, so that nothing outlives us.
set -m
stop() {
  local group
  for group in $(jobs -p); do kill -- "-$group" 2>/dev/null || true; done
  wait
  rm -rf "$work"
}
trap stop EXIT
trap 'exit 130' INT TERM
chmod 755 "$work"

# The layout of the checkout is kept, so that tests find what stands beside them
# and the programs in ../../bin.
[ ! -d bin ] || cp -r bin "$work/bin"
cp -r --parents docs/examples "$work"
for pattern in $packages; do
  [ -d "${pattern%/...}" ] || continue
  go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.Dir}}{{end}}' "$pattern"
done | sort -u | while read -r dir; do
  [ -n "$dir" ] || continue
  rel=${dir#"$PWD"/}
  # Pure, or files alone: no kernel changes their answer.
  case $rel in
  runtime/plan | runtime/seccomp/libseccomp | runtime/seccomp/bpf | runtime/seccomp/calls | shim/bundle) continue ;;
  supervisor/api | supervisor/history* | supervisor/events | supervisor/admission | supervisor/config | supervisor/policy | supervisor/bench) continue ;;
  esac
  build "$rel" list "$tags"
done
case " ${configs[*]} " in *" systemd:"*)
  cp -r --parents cmd/capsuled/systemd "$work"
  build hack/units list-systemd "$tags,systemd"
  ;;
esac
if [ ! -s "$work/list" ] && [ ! -s "$work/list-systemd" ]; then
  echo "virtual machines: no package has kernel tests"
  exit 0
fi

cat >"$work/driver" <<'D'
#!/bin/bash
# Runs inside the machine. Output goes to files: the console has one channel.
export CAPSULE_TEST_SLOW=10 CAPSULE_BIN=$TOP/bin
# Tests may set sysctls here: the machine is thrown away.
export CAPSULE_TEST_DISPOSABLE=1
# Temporary files on a disk: before Linux 6.3 a tmpfs has no idmapped mounts.
[ ! -w /scratch ] || export TMPDIR=/scratch
# go run compiles Go's own library first: a quarter of an hour in here. podman takes
# eight minutes.
skip='^TestPrograms$/^go_run$|^TestPodman'
for p in $PACKAGES; do
  cd "$TOP/$p"
  name=${p//\//+} began=$SECONDS
  ./kernel.test -test.v=test2json -test.timeout="${SECONDS_EACH}s" -test.skip "$skip" >"$OUT/$name" 2>&1 </dev/null
  status=$?
  echo $status >"$OUT/$name.status"
  echo "  $CONFIG $p: exit $status, $((SECONDS - began)) s"
done
D
chmod +x "$work/driver"

# packages_of KERNEL:USER[@DIR]: what a machine runs, a line each.
packages_of() {
  local dir=${1#*@}
  case $1 in
  systemd:*) cat "$work/list-systemd" ;;
  *@-*) grep -Ev "^${dir#-}(/|$)" "$work/list" || true ;;
  *@*) grep -E "^$dir(/|$)" "$work/list" || true ;;
  *) cat "$work/list" ;;
  esac
}

# machine KERNEL:USER[@DIR]: boot, run, report. The report comes in one piece, as two
# machines run at a time.
machine() {
  local name=${1%@*} out packages status=0 kind=(--kernel "${1%%:*}")
  local user=${name##*:}
  out=$work/out-$(tr :@/ - <<<"$1")
  [ "${1%%:*}" != systemd ] || kind=(--systemd)
  packages=$(packages_of "$1")
  if [ -z "$packages" ]; then
    echo "machine $1: no package of the list is for it" >&2
    return 1
  fi
  mkdir -m 777 "$out"
  (cd "$work" && "$top/$runner" "${kind[@]}" --user "$user" --cwd "$work" --mem 2048 --timeout "$seconds" \
    --env TOP="$work" --env PACKAGES="${packages//$'\n'/ }" --env OUT="$out" --env CONFIG="$1" --env SECONDS_EACH=$((seconds * 2 / 3)) --env CAPSULE_TEST_STRICT \
    -- "$work/driver") || status=$?
  while read -r p; do
    local file=$out/${p//\//+}
    [ -e "$file" ] || echo "--- not run: the machine ended first (status $status)" >"$file"
    # test2json takes the package's verdict from the closing PASS or FAIL; a
    # binary that died without one needs it from its status.
    if [ "$(cat "$file.status" 2>/dev/null || echo 255)" != 0 ]; then
      { cat "$file"; echo FAIL; } | go tool test2json -p "$p"
    else
      go tool test2json -p "$p" <"$file"
    fi
  done <<<"$packages" >"$out.json"
  go run ./hack/testreport -label "machine $1" <"$out.json" >"$out.report" 2>&1 || status=1
  cat "$out.report"
  return $status
}

top=$PWD
case $runner in /*) top= ;; esac
echo "virtual machines: ${configs[*]}"
failed=0 running=0
for config in "${configs[@]}"; do
  if [ $running = 2 ]; then
    wait -n || failed=1
    running=1
  fi
  machine "$config" &
  running=$((running + 1))
done
while [ $running -gt 0 ]; do
  wait -n || failed=1
  running=$((running - 1))
done
exit $failed
