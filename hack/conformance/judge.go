package main

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
)

// The results of a program. A race may end either way; its reason says why. One of v1
// passes where the control groups are, and the kernel has the controllers that it wants.
const (
	resultPass = "pass"
	resultFail = "fail"
	resultRace = "race"
	resultV1   = "v1"
)

// judge reads TAP: a program passes when it exits with 0 and no assertion failed. Some
// assert nothing where all is well and print a diagnostic with an error where it is not;
// two (process_capabilities_fail, process_rlimits_fail) tell by their exit status alone.
func judge(failed error, stdout, stderr string) (result, why string) {
	asserted := false
	for line := range strings.Lines(stdout) {
		line = strings.TrimRight(line, "\n")
		switch {
		// TAP's directive is the suite's own word that it cannot make this assertion.
		case strings.HasPrefix(line, "not ok") && !strings.Contains(line, "# TODO"):
			return resultFail, line
		case strings.HasPrefix(line, "Bail out!"):
			return resultFail, line
		case strings.HasPrefix(line, "ok"):
			asserted = true
		}
	}
	if failed != nil {
		first, _, _ := strings.Cut(strings.TrimSpace(stderr), "\n")
		return resultFail, failed.Error() + ": " + first
	}
	if _, text, ok := strings.Cut(stdout, `"error": `); ok && !asserted {
		first, _, _ := strings.Cut(text, "\n")
		return resultFail, first
	}
	return resultPass, ""
}

// expectation is a line of the list.
type expectation struct{ name, result, reason string }

//go:embed expected.txt
var expected string

// expectations reads the list: name, result and reason, with tabs between them.
func expectations() ([]expectation, error) {
	var all []expectation
	for line := range strings.Lines(expected) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.SplitN(line, "\t", 3)
		if len(fields) == 2 && (fields[1] == resultPass || fields[1] == resultV1) {
			fields = append(fields, "")
		}
		if len(fields) != 3 || fields[2] == "" && fields[1] != resultPass && fields[1] != resultV1 ||
			!slices.Contains([]string{resultPass, resultFail, resultRace, resultV1}, fields[1]) {
			return nil, fmt.Errorf("expected.txt: %q is not name, pass, v1, fail or race, and the reason", line)
		}
		all = append(all, expectation{fields[0], fields[1], fields[2]})
	}
	return all, nil
}

func find(list []expectation, name string) (expectation, bool) {
	for _, e := range list {
		if e.name == name {
			return e, true
		}
	}
	return expectation{}, false
}

// document is docs/conformance.md.
func document(list []expectation) string {
	passing := 0
	for _, e := range list {
		if e.result == resultPass || e.result == resultV1 {
			passing++
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, `# Conformance

<!-- Made of hack/conformance/expected.txt by make generate. -->

`+"`capsule-oci`"+` is tried with the OCI validation suite, [runtime-tools](https://github.com/opencontainers/runtime-tools)
%s. %d of its %d programs are expected to pass. `+"`make conformance`"+` builds the suite outside of the tree, runs each program in a mount
namespace of its own and compares; it fails when one that is to pass does not. The result v1 is a pass where the control groups are of v1 and the kernel has the
controllers: those that no distribution mounts (`+"`net_cls`, `net_prio`, `hugetlb`"+`) are mounted for the program that wants them, and given back to the kernel after it.
Where the v2 tree of such a host has `+"`hugetlb`"+` in use the two programs of that are left out.

This commit of the suite is the last that compares limits of processes as numbers. The next, v0.9.1-0.20251114084447-edf4cb3d2116, compares two pointers, which
nobody passes: `+"`delete_resources`, `linux_cgroups_pids` and `linux_cgroups_relative_pids`"+` fail there. All others say the same there.

On the same host (cgroup v1 and an empty v2, root without CAP_SYS_RESOURCE) and with that next commit, runc 1.1.5 passes 28 and crun 1.27.1 38 by their own count.
Of the programs that fail here runc 1.1.5 passes `+"`linux_ns_itype`"+`, and crun 1.8.1 none, by the rules of this comparison.

The specification is followed where the suite asks for its opposite. What a host does not have is refused and never passed over, so a
program that asks for it fails.

| Program | Expected | Why |
|---|---|---|
`, version, passing, len(list))
	for _, e := range list {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", e.name, e.result, e.reason)
	}
	return b.String()
}
