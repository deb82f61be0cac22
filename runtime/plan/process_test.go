package plan

import (
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/spec/fault"
)

// TestProcess pins the plan of a command without a sandbox.
func TestProcess(t *testing.T) {
	s := &specs.Spec{Process: &specs.Process{Args: []string{"run", "it"}, Cwd: "/work", Env: []string{"PATH=/a:/b"},
		Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 5, Hard: 6}}}}
	p, err := Process(s)
	if err != nil {
		t.Fatal(err)
	}
	if p.Clone != 0 || p.UIDMap != nil || p.HasInit || p.Init != nil || len(p.Sources) != 0 || strings.Join(p.Walls, " ") != "rlimits" {
		t.Errorf("%+v", p)
	}
	var all []string
	for _, step := range slices.Concat(p.Setup, p.Payload, p.Command) {
		all = append(all, step.String())
	}
	want := []string{"read(sync, one byte, 1)", "dup3(stdin, 0, 0)", "dup3(stdout, 1, 0)", "dup3(stderr, 2, 0)",
		"close_range(3, low-1, 0)", "close_range(low+1, high-1, 0)", "close_range(high+1, ~0, 0)",
		"setsid()", "umask(022)", `file = openat2(AT_FDCWD, "/work", O_PATH, no magic links, 24)`, "fchdir(file)", "close(file)",
		"prlimit64(0, RLIMIT_NOFILE, 5:6, 0)",
		`faccessat(AT_FDCWD, "/a/run", 0, 0)`, `faccessat(AT_FDCWD, "/b/run", 0, 0)`, "prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)",
		"write(sync, one byte, 1)", "close_range(3, ~0, CLOSE_RANGE_CLOEXEC)", "clock_gettime(CLOCK_MONOTONIC, start of the command)",
		`execve("/a/run", ["run" "it"], ["PATH=/a:/b"])`, `execve("/b/run", ["run" "it"], ["PATH=/a:/b"])`}
	if strings.Join(all, "\n") != strings.Join(want, "\n") {
		t.Errorf("\n%s", strings.Join(all, "\n"))
	}
	for name, change := range map[string]func(*specs.Process){
		"no command": func(p *specs.Process) { p.Args = nil }, "relative directory": func(p *specs.Process) { p.Cwd = "work" },
		"unknown limit": func(p *specs.Process) { p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NONE"}} },
	} {
		bad := &specs.Spec{Process: &specs.Process{Args: []string{"a"}, Cwd: "/"}}
		change(bad.Process)
		if _, err := Process(bad); fault.From(err, "").Code != fault.InvalidBundle {
			t.Errorf("%s: %v", name, err)
		}
	}
}
