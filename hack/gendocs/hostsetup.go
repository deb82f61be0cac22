package main

import (
	"fmt"
	"strings"

	"github.com/capsule-run/capsule/shim/doctor"
)

// hostKinds are the kinds of host and what works on each.
var hostKinds = []struct{ kind, needs, gets string }{
	{"cgroup v2, root", "Linux 5.12, better 6.1; `/sys/fs/cgroup` mounted", "every wall and limit"},
	{"cgroup v2, another user", "a systemd user session with the controllers delegated to it (`cgroup_controller` below), or a unit or scope with `Delegate=yes`. " +
		"capsule moves what is in the delegated cgroup to the leaf `capsule.leaf` and enables the controllers then", "every wall; the limits of the delegated controllers"},
	{"cgroup v1 or hybrid, root", "the hierarchies memory, pids and cpu mounted below `/sys/fs/cgroup`", "every wall and limit; swap where the kernel counts it; no bound on what is written to the disk of a writable path"},
	{"cgroup v1 or hybrid, another user", "nothing", "every wall; no limits of memory, pids and cpu"},
	{"no control groups", "nothing", "every wall; no limits of memory, pids and cpu"},
	{"container, as root", "`CAP_SYS_ADMIN`, a fully visible `/proc`, no filter or profile against mounts, a writable `/sys/fs/cgroup` for limits", "every wall; limits where the cgroup is writable"},
	{"container, another user", "the container's filter and profile must allow user namespaces and mounts in them, and `/proc` be fully visible", "every wall; no limits without a delegated cgroup"},
	{"restricted user namespaces", "the sysctl or the profile below", "nothing before that: E2001; root is not affected by the restrictions of users"},
}

// hostSetup is host-setup.md.
func hostSetup() []byte {
	var b strings.Builder
	b.WriteString("# What a host needs\n\n" + generated +
		"`capsulectl doctor` tries everything on this page on the host at hand, with the code that sets up every sandbox:\n\n" +
		"```sh\ncapsulectl doctor                  # for this user\nsudo capsulectl doctor             # for root and the user who calls sudo\n" +
		"capsulectl doctor --path \"$PWD\"    # can this directory be given to a sandbox?\ncapsulectl doctor -o json          # for programs\n```\n\n" +
		"For each wall and limit it prints\n\n" +
		"* `works`: executions get it and the kernel confirms it;\n" +
		"* `degraded`: executions run without it and say so in `enforcement`; one that asks for it is refused with the code shown;\n" +
		"* `blocked`: no execution can run because of it;\n\n" +
		"with the setting in the way and the commands that mend it. The exit status is 0 when everything works, 1 when something is degraded, 2 when something is\n" +
		"blocked, 125 when the examination failed. It changes nothing and leaves nothing behind: processes that it moved within a delegated\n" +
		"cgroup are moved back, unless another execution has begun there meanwhile.\n\n" +
		"## Kinds of host\n\nEach is recognised by trying, not by a version.\n\n| host | needs | gets |\n|---|---|---|\n")
	for _, k := range hostKinds {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", k.kind, cell(k.needs), cell(k.gets))
	}
	b.WriteString("\n## What can be in the way\n\nThe names are those of `cause` in the report.\n")
	for _, c := range doctor.Causes() {
		fmt.Fprintf(&b, "\n### %s\n\n%s. Met on: %s. Executions: %s.\n\n```sh\n%s\n```\n", c.ID, upper(c.Setting), c.Host, c.Effect, strings.Join(c.Fix, "\n"))
	}
	b.WriteString("\n`{SHIM}`, `{USER}`, `{UID}`, `{SYSCTL}` and `{CONTROLLER}` stand for what doctor found; it prints the commands filled in.\n\n" +
		"## Ubuntu 23.10 and later\n\nAppArmor keeps users other than root from making user namespaces, unless a profile allows it to the program. The profile for\n" +
		"the usual places is [cmd/capsule-shim/apparmor/capsule-shim](../cmd/capsule-shim/apparmor/capsule-shim); `capsulectl doctor --apparmor-profile` prints one\n" +
		"for where capsule-shim really is:\n\n```sh\ncapsulectl doctor --apparmor-profile | sudo tee /etc/apparmor.d/capsule-shim\nsudo apparmor_parser -r /etc/apparmor.d/capsule-shim\ncapsulectl doctor\n```\n\n" +
		"It allows user namespaces to capsule-shim alone and confines nothing; the host keeps its restriction for every other program.\n")
	return []byte(b.String())
}

func upper(s string) string {
	if s == "" || strings.HasPrefix(s, "/") || strings.HasPrefix(s, "capsule") {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
