//go:build unix

package main

import (
	"strings"
	"syscall"
	"testing"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

func failed(code fault.Code, reason spec.Reason, errno any) *spec.Response {
	r := &spec.Response{Status: spec.StatusError, Termination: spec.Termination{Reason: reason}}
	r.Error = &spec.Error{Code: string(code), Message: "exec foo", Hint: "Mend it."}
	if errno != nil {
		r.Error.Details = map[string]any{"errno": errno}
	}
	return r
}

func TestVerdicts(t *testing.T) {
	req := spec.Default()
	req.Command = []string{"foo"}
	req.Resources.CPUTimeMS = ptr[int64](1500)
	oomInside := exited(0)
	oomInside.Metrics.OOMKills = ptr[int64](2)
	warned := exited(0)
	warned.Warnings = []string{"no swap accounting"}
	denied := signalled(spec.StatusKilled, spec.ReasonSeccomp, int(syscall.SIGSYS))
	denied.Denials = []spec.Denial{{Kind: "syscall", Name: "kexec_load", Count: 1}}
	kill := func(reason spec.Reason) *spec.Response { return signalled(spec.StatusKilled, reason, 9) }
	cases := []struct {
		name     string
		response *spec.Response
		caller   syscall.Signal
		code     int
		says     string
	}{
		{"exit 0", exited(0), 0, 0, ""},
		{"exit 7", exited(7), 0, 7, ""},
		{"exit 255", exited(255), 0, 255, ""},
		{"no status", &spec.Response{Status: spec.StatusSuccess}, 0, 125, ""},
		{"a child ran out of memory", oomInside, 0, 0, "memory limit of 256MiB killed 2"},
		{"warning", warned, 0, 0, "warning: no swap accounting"},
		{"SIGSEGV", signalled(spec.StatusKilled, spec.ReasonSignaled, 11), 0, 139, "killed by signal 11 (SIGSEGV)"},
		{"real-time signal", signalled(spec.StatusKilled, spec.ReasonSignaled, 40), 0, 168, "killed by signal 40"},
		{"timeout", signalled(spec.StatusTimeout, spec.ReasonTimeoutWall, 15), 0, 124, "killed: timed out after 30 s; try --timeout 60s"},
		{"oom", kill(spec.ReasonOOM), 0, 137, "killed: out of memory at 256MiB; try --memory 512MiB"},
		{"cpu", kill(spec.ReasonTimeoutCPU), 0, 137, "killed: used up its CPU time of 1.5 s; try --cpu-time 3s"},
		{"output", kill(spec.ReasonOutputLimit), 0, 137, "more than 1MiB; try --max-output 2MiB"},
		{"pids", kill(spec.ReasonPidsLimit), 0, 137, "failed at the limit of 100 processes and threads; try --max-pids 200"},
		{"disk", kill(spec.ReasonDiskLimit), 0, 137, "try --disk 128MiB"},
		{"seccomp", denied, 0, 159, "seccomp filter forbids (kexec_load)"},
		{"caller by context", kill(spec.ReasonKilledByCaller), 0, 137, "cancelled by the caller"},
		{"caller by signal", kill(spec.ReasonKilledByCaller), syscall.SIGTERM, 143, "interrupted by SIGTERM"},
		{"passed on", signalled(spec.StatusKilled, spec.ReasonKilledByCaller, 2), syscall.SIGINT, 130, ""},
		{"shim lost", failed(fault.ShimLost, spec.ReasonShimLost, nil), 0, 125, "E6005: exec foo. Mend it."},
		{"set-up", failed(fault.Filesystem, spec.ReasonSetupFailed, "EPERM"), 0, 125, "E2004: exec foo. Mend it."},
		{"not found", failed(fault.CommandNotFound, spec.ReasonSetupFailed, "ENOENT"), 0, 127, "E3003"},
		{"not found by number", failed(fault.CommandNotFound, spec.ReasonSetupFailed, 2.0), 0, 127, "E3003"},
		{"not found, unsaid", failed(fault.CommandNotFound, spec.ReasonSetupFailed, nil), 0, 127, "E3003"},
		{"not executable", failed(fault.CommandNotFound, spec.ReasonSetupFailed, "EACCES"), 0, 126, "E3003"},
		{"directory", failed(fault.CommandNotFound, spec.ReasonSetupFailed, "EISDIR"), 0, 126, "E3003"},
		{"no format", failed(fault.CommandNotFound, spec.ReasonSetupFailed, 8.0), 0, 126, "E3003"},
		{"error without error", &spec.Response{Status: spec.StatusError}, 0, 125, "failed without saying why"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if code := spec.ExitStatus(c.response, c.caller); code != c.code {
				t.Errorf("exit %d, want %d", code, c.code)
			}
			lines := strings.Join(verdictLines(c.response, req, nil, c.caller), "\n")
			if !strings.Contains(lines, c.says) || (c.says == "") != (lines == "") {
				t.Errorf("says %q, want %q", lines, c.says)
			}
			if strings.Contains(lines, "\n") {
				t.Errorf("more than one line: %q", lines)
			}
		})
	}
}

// TestVerboseIsTotal makes sure that no absent part of a response is needed.
func TestVerboseIsTotal(t *testing.T) {
	for _, r := range []*spec.Response{exited(0), failed(fault.ShimLost, spec.ReasonShimLost, nil), {}} {
		if lines := verboseLines(r, nil); len(lines) != 1 {
			t.Errorf("unmeasured values are shown: %q", lines)
		}
	}
	full := exited(0)
	full.ExecutionID = "ID"
	full.Metrics = spec.Metrics{WallTimeMS: ptr(12.34), UserTimeMS: ptr(0.5), MaxMemoryBytes: ptr[int64](9 << 20), MaxPids: ptr[int64](1), StartupUS: ptr[int64](1900)}
	full.Output = &spec.Output{Stdout: spec.StreamCount{BytesTotal: 3}}
	full.Enforcement = &spec.Enforcement{
		Walls:  map[string]spec.State{"rootfs": spec.Enforced, "seccomp": spec.Enforced, "time_namespace": spec.Absent},
		Limits: map[string]spec.State{"memory": spec.Enforced}, CgroupVersion: "v2",
	}
	full.Denials = []spec.Denial{{Kind: "syscall", Name: "mount", Count: 2, Detail: "EPERM"}}
	const want = `execution ID: success, exited with 0
time: wall 12.3 ms, user 0.5 ms, started in 1.9 ms
use: memory peak 9MiB of 256MiB, processes peak 1, stdout 3B, stderr 0B
walls: enforced rootfs seccomp; absent time_namespace
limits: enforced memory (cgroup v2)
denied: syscall mount, 2 times (EPERM)`
	if got := strings.Join(verboseLines(full, spec.Default()), "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestFilterIsTold: a command that failed behind a filter that refused it something is
// told of with the names of the calls; one that coped is not.
func TestFilterIsTold(t *testing.T) {
	r := exited(2)
	r.Denials = []spec.Denial{{Kind: "syscall", Name: "pipe2", Count: 1}, {Kind: "path", Name: "/x", Count: 1}}
	if got := verdictLines(r, spec.Default(), nil, 0); len(got) != 1 || !strings.Contains(got[0], "refused some of its calls (pipe2);") {
		t.Errorf("exit 2: %q", got)
	}
	*r.ExitCode = 0
	if got := verdictLines(r, spec.Default(), nil, 0); len(got) != 0 {
		t.Errorf("exit 0: %q", got)
	}
}

func TestTruncationNote(t *testing.T) {
	r := exited(0)
	if truncationNote(r) != "" {
		t.Error("a note without output")
	}
	r.Output = &spec.Output{Stdout: spec.StreamCount{BytesTotal: 1 << 30, BytesKept: 1 << 20, Truncated: true}}
	if got := truncationNote(r); got != "note: kept 1MiB of 1GiB of stdout; --max-output keeps more" {
		t.Error(got)
	}
}

func TestDuration(t *testing.T) {
	for ms, want := range map[int64]string{0: "0 ms", 7: "7 ms", 1500: "1.5 s", 119_000: "119 s", 120_000: "2 min", 86_400_000: "24 h"} {
		if got := duration(ms); got != want {
			t.Errorf("%d: %s, want %s", ms, got, want)
		}
	}
}

func TestNearest(t *testing.T) {
	for word, want := range map[string]string{"tiemout": "timeout", "timeuot": "timeout", "mem": "memory", "xyzzy": "", "evn": "env", "t": ""} {
		if got := nearest(word, []string{"timeout", "memory", "env"}); got != want {
			t.Errorf("%s: %q, want %q", word, got, want)
		}
	}
}

func TestFailureNamesTheFlag(t *testing.T) {
	settings := []setting{{longOption("cpus"), "9"}, {longOption("bind"), "a:/b"}}
	req := spec.Default()
	req.Command = []string{"ls"}
	for _, c := range []struct {
		details map[string]any
		want    string
	}{
		{nil, "E1003: too much. Take less."},
		{map[string]any{"field": "/resources/cpu_quota"}, "E1003: flag --cpus: too much. Take less."},
		{map[string]any{"field": "/resources/max_pids"}, "E1003: /resources/max_pids: too much. Take less."},
		{map[string]any{"field": "linux.seccomp"}, "E1003: linux.seccomp: too much. Take less."},
		{map[string]any{"problems": []any{
			map[string]any{"code": "E1006", "pointer": "/isolation/bind_mounts/0", "message": "gone", "hint": "Make it."},
			map[string]any{"code": "E1003", "pointer": "/resources/cpu_quota", "message": "no"},
		}}, "E1006: flag --bind: gone. Make it.\nE1003: flag --cpus: no"},
	} {
		e := &spec.Error{Code: "E1003", Message: "too much", Hint: "Take less.", Details: c.details}
		if got := strings.Join(failureLines(e, req, settings), "\n"); got != c.want {
			t.Errorf("%v: %q, want %q", c.details, got, c.want)
		}
	}
}
