#!/usr/bin/env bash
# Runs the jobs that .github/workflows run, which call this with their name: what
# is green here is green there, and no service is needed to see it.
#
#   hack/ci-local.sh [JOB...]    default: all, one after the other
set -euo pipefail
cd "$(dirname "$0")/.."

# A job is a function; hack/archtest holds the workflows to this list.
job_test() { .ci/run; }
job_race() { make test-race CAPSULE_TEST_STRICT=1; }
job_fuzz() { make build && make fuzz FUZZTIME="${FUZZTIME:-30s}"; }
job_cross() { make cross; }
job_release() { make release-check; }

all=(test race fuzz cross release)
for job in "${@:-${all[@]}}"; do
  [[ " ${all[*]} " == *" $job "* ]] || { echo "ci-local: no job $job; there are: ${all[*]}" >&2; exit 2; }
done
command -v make >/dev/null || hack/deps.sh build # as in the image that cross and release run in
failed=()
for job in "${@:-${all[@]}}"; do
  start=$SECONDS
  echo "== job $job =="
  # A shell of its own: with || a function would go on after what fails in it.
  if bash -euo pipefail -c "$(declare -f "job_$job"); job_$job"; then
    echo "== job $job passed in $((SECONDS - start)) s =="
  else
    failed+=("$job")
    echo "== job $job failed after $((SECONDS - start)) s ==" >&2
  fi
done
[ ${#failed[@]} = 0 ] || { echo "ci-local: failed: ${failed[*]}" >&2; exit 1; }
