#!/usr/bin/env bash
# Runs the tests that meet the kernel in throw-away virtual machines: other
# kernels than this one, a unified cgroup v2 tree, root and an unprivileged
# user. Every test binary is compiled here; each machine boots once and runs
# them all.
#
#   hack/vmtest.sh [-p "PATTERN..."] [KERNEL:USER...]
#
# The machines come from a runner with the command line
#   run --kernel K --user U --cwd DIR --mem MIB --timeout S -- COMMAND...
# CAPSULE_VMTEST names it (or its directory); otherwise a vmtest/run in a
# directory beside this checkout is used. Without one nothing is run here and
# the message says so.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=${CAPSULE_VMTEST_PACKAGES:-./runtime/... ./shim/... ./supervisor/... ./cmd/... ./hack/e2e/...}
if [ "${1:-}" = -p ]; then
  packages=$2
  shift 2
fi
configs=("$@")
[ ${#configs[@]} -gt 0 ] || read -ra configs <<<"${CAPSULE_VMTEST_CONFIGS:-6.1:root 6.1:nobody 6.12:root 6.12:nobody}"
# Creating a process costs 30 to 140 times as much in an emulated machine.
seconds=${CAPSULE_VMTEST_TIMEOUT:-1500}

runner=${CAPSULE_VMTEST:-$(compgen -G '../*/vmtest/run' | head -n 1 || true)}
[ ! -d "$runner" ] || runner=$runner/run
if [ -z "$runner" ] || [ ! -x "$runner" ]; then
  echo "virtual machines: no runner (CAPSULE_VMTEST), so other kernels were not tested"
  exit 0
fi
export VMTEST_CACHE=${VMTEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/capsule-vmtest}
mkdir -p "$VMTEST_CACHE"

work=$(mktemp -d "${TMPDIR:-/tmp}/capsule-vm.XXXXXX")
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"

# The layout of the checkout is kept, so that tests find testdata beside them
# and the programs in ../../bin.
[ ! -d bin ] || cp -r bin "$work/bin"
for pattern in $packages; do
  [ -d "${pattern%/...}" ] || continue
  go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.Dir}}{{end}}' "$pattern"
done | sort -u | while read -r dir; do
  [ -n "$dir" ] || continue
  rel=${dir#"$PWD"/}
  case $rel in runtime/plan | shim/bundle) continue ;; esac # pure: no kernel changes their answer
  mkdir -p "$work/$rel"
  go test -c -tags "${TAGS:-urfave_cli_no_docs}" -o "$work/$rel/kernel.test" "./$rel" >&2
  [ ! -d "$rel/testdata" ] || cp -r "$rel/testdata" "$work/$rel/"
  [ ! -e "$work/$rel/kernel.test" ] || echo "$rel" >>"$work/list"
done
if [ ! -s "$work/list" ]; then
  echo "virtual machines: no package has kernel tests"
  exit 0
fi

cat >"$work/driver" <<'D'
#!/bin/bash
# Runs inside the machine. Output goes to files: the console has one channel.
export CAPSULE_TEST_SLOW=10 CAPSULE_BIN=$PWD/bin
mkdir -p /tmp/home && export HOME=/tmp/home
while read -r p; do
  cd "$TOP/$p"
  ./kernel.test -test.v=test2json -test.timeout="${SECONDS_EACH}s" >"$TOP/out/${p//\//+}" 2>&1 </dev/null
  echo $? >"$TOP/out/${p//\//+}.status"
  echo "  $p: exit $(cat "$TOP/out/${p//\//+}.status")"
done <"$TOP/list"
D
chmod +x "$work/driver"

failed=0
for config in "${configs[@]}"; do
  kernel=${config%%:*} user=${config##*:}
  echo "virtual machine: kernel $kernel, $user"
  rm -rf "$work/out"
  mkdir -m 777 "$work/out"
  machine=0
  (cd "$work" && "$OLDPWD/$runner" --kernel "$kernel" --user "$user" --cwd "$work" --mem 2048 --timeout "$seconds" \
    --env TOP="$work" --env SECONDS_EACH=$((seconds * 2 / 3)) --env CAPSULE_TEST_STRICT -- "$work/driver") || machine=$?
  while read -r p; do
    out=$work/out/${p//\//+}
    [ -e "$out" ] || echo "--- not run: the machine ended first (status $machine)" >"$out"
    # test2json takes the package's verdict from the closing PASS or FAIL; a
    # binary that died without one needs it from its status.
    if [ "$(cat "$out.status" 2>/dev/null || echo 255)" != 0 ]; then
      { cat "$out"; echo FAIL; } | go tool test2json -p "$p"
    else
      go tool test2json -p "$p" <"$out"
    fi
  done <"$work/list" | go run ./hack/testreport -label "kernel $kernel, $user" || failed=1
done
exit $failed
