package shim

import (
	"syscall"
	"testing"
	"time"

	"github.com/capsule-run/capsule/runtime/cgroup"
	"github.com/capsule-run/capsule/runtime/launch"
	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// exited and signaled are wait statuses as wait4(2) gives them.
func exited(code int) syscall.WaitStatus             { return syscall.WaitStatus(code << 8) }
func signaled(sig syscall.Signal) syscall.WaitStatus { return syscall.WaitStatus(sig) }

func TestJudge(t *testing.T) {
	oom := cgroup.Stats{OOMKills: ptr(int64(1))}
	kill := signaled(syscall.SIGKILL)
	full := []launch.FullDisk{{Path: "/tmp", Bytes: true}}
	forks := cgroup.Stats{PidsLimitHits: ptr(int64(3)), PidsPeak: ptr(int64(20))}
	for _, c := range []struct {
		name   string
		seen   observation
		status spec.Status
		reason spec.Reason
		code   fault.Code
	}{
		{"exit 0", observation{exited: true, status: exited(0)}, spec.StatusSuccess, spec.ReasonExited, ""},
		{"exit 3", observation{exited: true, status: exited(3)}, spec.StatusSuccess, spec.ReasonExited, ""},
		{"killed from inside", observation{exited: true, status: kill}, spec.StatusKilled, spec.ReasonSignaled, fault.KilledBySignal},
		{"SIGSYS", observation{exited: true, status: signaled(syscall.SIGSYS)}, spec.StatusKilled, spec.ReasonSeccomp, fault.SyscallRefused},
		{"caller's signal", observation{exited: true, status: signaled(syscall.SIGTERM), callerSignal: syscall.SIGTERM}, spec.StatusKilled, spec.ReasonKilledByCaller, fault.Cancelled},
		{"another signal than the caller's", observation{exited: true, status: signaled(syscall.SIGSEGV), callerSignal: syscall.SIGTERM}, spec.StatusKilled, spec.ReasonSignaled, fault.KilledBySignal},
		{"caller's signal handled", observation{exited: true, status: exited(0), callerSignal: syscall.SIGTERM}, spec.StatusSuccess, spec.ReasonExited, ""},
		{"cancelled", observation{cancelled: true}, spec.StatusKilled, spec.ReasonKilledByCaller, fault.Cancelled},
		{"cancelled, status known", observation{cancelled: true, exited: true, status: kill}, spec.StatusKilled, spec.ReasonKilledByCaller, fault.Cancelled},
		{"exited just before the cancellation struck", observation{cancelled: true, exited: true, status: exited(4)}, spec.StatusSuccess, spec.ReasonExited, ""},
		{"cancelled before it ran", observation{cancelled: true, failure: cancelledEarly()}, spec.StatusKilled, spec.ReasonKilledByCaller, fault.Cancelled},
		{"exit 0 after the timeout", observation{timeout: true, exited: true, status: exited(0)}, spec.StatusTimeout, spec.ReasonTimeoutWall, fault.Timeout},
		{"killed after the timeout", observation{timeout: true}, spec.StatusTimeout, spec.ReasonTimeoutWall, fault.Timeout},
		{"out of memory", observation{exited: true, status: kill, stats: oom}, spec.StatusKilled, spec.ReasonOOM, fault.OutOfMemory},
		{"out of memory took process 1", observation{stats: oom}, spec.StatusKilled, spec.ReasonOOM, fault.OutOfMemory},
		{"out of memory in the set-up", observation{failure: fault.New(fault.MonitorFailed, "", "x"), stats: oom}, spec.StatusKilled, spec.ReasonOOM, fault.OutOfMemory},
		{"out of memory in a child, exit 0", observation{exited: true, status: exited(0), stats: oom}, spec.StatusKilled, spec.ReasonOOM, fault.OutOfMemory},
		{"out of memory and everything else", observation{exited: true, status: exited(1), stats: oom, timeout: true, outputLimit: true, cancelled: true, full: full}, spec.StatusKilled, spec.ReasonOOM, fault.OutOfMemory},
		{"output before the clock", observation{exited: true, status: kill, timeout: true, outputLimit: true}, spec.StatusKilled, spec.ReasonOutputLimit, fault.OutputLimit},
		{"the clock before the caller", observation{exited: true, status: kill, timeout: true, cancelled: true}, spec.StatusTimeout, spec.ReasonTimeoutWall, fault.Timeout},
		{"the clock before a full disk", observation{exited: true, status: exited(1), timeout: true, full: full}, spec.StatusTimeout, spec.ReasonTimeoutWall, fault.Timeout},
		{"a full disk, exit 1", observation{exited: true, status: exited(1), full: full}, spec.StatusKilled, spec.ReasonDiskLimit, fault.DiskLimit},
		{"a full disk, SIGBUS", observation{exited: true, status: signaled(syscall.SIGBUS), full: full}, spec.StatusKilled, spec.ReasonDiskLimit, fault.DiskLimit},
		{"a full disk, exit 0", observation{exited: true, status: exited(0), full: full}, spec.StatusSuccess, spec.ReasonExited, ""},
		{"a full disk before refused forks", observation{exited: true, status: exited(1), full: full, stats: forks, pidsLimit: 20}, spec.StatusKilled, spec.ReasonDiskLimit, fault.DiskLimit},
		{"refused forks, exit 2", observation{exited: true, status: exited(2), stats: forks, pidsLimit: 20}, spec.StatusKilled, spec.ReasonPidsLimit, fault.ProcessLimit},
		{"refused forks, exit 0", observation{exited: true, status: exited(0), stats: forks, pidsLimit: 20}, spec.StatusSuccess, spec.ReasonExited, ""},
		{"refused forks, no limit of ours", observation{exited: true, status: exited(2), stats: forks}, spec.StatusSuccess, spec.ReasonExited, ""},
		{"refused forks by a group around", observation{exited: true, status: exited(2), stats: forks, pidsLimit: 20, initCounts: true}, spec.StatusSuccess, spec.ReasonExited, ""},
		{"refused forks and SIGSYS", observation{exited: true, status: signaled(syscall.SIGSYS), stats: forks, pidsLimit: 20}, spec.StatusKilled, spec.ReasonSeccomp, fault.SyscallRefused},
		{"process 1 killed by a stranger", observation{}, spec.StatusError, spec.ReasonSetupFailed, fault.MonitorFailed},
		{"set-up failed", observation{failure: fault.New(fault.Namespace, "", "x")}, spec.StatusError, spec.ReasonSetupFailed, fault.Namespace},
		{"refused", observation{failure: fault.New(fault.LimitUnavailable, "", "x")}, spec.StatusError, spec.ReasonRefused, fault.LimitUnavailable},
		{"output limit", observation{outputLimit: true, exited: true, status: kill}, spec.StatusKilled, spec.ReasonOutputLimit, fault.OutputLimit},
	} {
		req := spec.Default()
		v := judge(req, c.seen)
		code := fault.Code("")
		if v.err != nil {
			code = fault.Code(v.err.Code)
		}
		if v.status != c.status || v.reason != c.reason || code != c.code {
			t.Errorf("%s: %s %s %q, want %s %s %q", c.name, v.status, v.reason, code, c.status, c.reason, c.code)
		}
		if v.exitCode != nil && v.signal != nil {
			t.Errorf("%s: exit code and signal at once", c.name)
		}
	}
}

// The end of the payload is what counts, not when it is told of.
func TestWhatStrikesAfterTheEndIsNoVerdict(t *testing.T) {
	e := newExecution(shimapi.Bootstrap{StateDir: layout.State(t.TempDir()), ExecutionID: "x"})
	req := spec.Default()
	e.req = req
	close(e.running)
	e.note(func(o *observation) { o.exited, o.status, o.wall = true, exited(0), time.Millisecond })
	e.onTimeout()
	e.cancel()
	if v := judge(e.req, e.observed()); v.reason != spec.ReasonExited {
		t.Errorf("reason %s, want exited", v.reason)
	}
}

func TestResponseThatCannotBeRecorded(t *testing.T) {
	full := fault.New(fault.IO, "write", "no space left on device")
	for _, size := range []int{10, inlineMax + 1} {
		r := &spec.Response{Status: spec.StatusSuccess, Termination: spec.Termination{Reason: spec.ReasonExited}}
		r.SetOutput(make([]byte, size), nil)
		data := unrecorded(r, len(r.Encode(false)), full)
		got, err := spec.DecodeResponse(data)
		if err != nil {
			t.Fatal(err)
		}
		large := size > inlineMax
		if len(data) > inlineMax || (got.Status == spec.StatusSuccess) == large || (got.Stdout == nil) != large || len(got.Warnings) == 0 {
			t.Errorf("%d bytes of output: %d bytes, status %s, warnings %v", size, len(data), got.Status, got.Warnings)
		}
	}
}

func TestOutputIsCutBetweenCharacters(t *testing.T) {
	for _, v := range []struct {
		name, kept      string
		truncated, tail bool
		want            string
	}{
		{"whole", "grün", true, false, "grün"},
		{"half a character", "gr\xc3", true, false, "gr"},
		{"two of three bytes", "a\xe2\x82", true, false, "a"},
		{"three of four bytes", "a\xf0\x9f\x98", true, false, "a"},
		{"nothing but a part", "\xf0\x9f", true, false, ""},
		{"not cut", "gr\xc3", false, false, "gr\xc3"},
		{"not text", "\xff\xc3", true, false, "\xff\xc3"},
		{"ends in no beginning", "a\xff", true, false, "a\xff"},
		{"tail, whole", "grün", true, true, "grün"},
		{"tail, rest of a character", "\xbcn", true, true, "n"},
		{"tail, three of four bytes", "\x9f\x98\x80a", true, true, "a"},
		{"tail, not text", "\xbc\xff", true, true, "\xbc\xff"},
	} {
		count := spec.StreamCount{BytesTotal: 100, BytesKept: int64(len(v.kept)), Truncated: v.truncated}
		have := string(spec.WholeRunes([]byte(v.kept), &count, v.tail))
		if have != v.want || count.BytesKept != int64(len(v.want)) {
			t.Errorf("%s: %q, %d bytes, want %q", v.name, have, count.BytesKept, v.want)
		}
	}
}
