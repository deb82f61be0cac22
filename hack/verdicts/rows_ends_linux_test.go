package verdicts

import (
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/capsule-run/capsule/spec"
)

// endings are the ends that a command finds by itself.
func endings() []row {
	rows := []row{
		{name: "nothing left behind by daemons", command: sh("for i in 1 2 3; do (setsid sleep 1000 &) ; done; exit 4"), want: exited(4)},
		{name: "a grandchild holds the pipes", command: sh("sleep 1000 & echo hi"), want: exited(0), stdout: text("hi\n")},
		{name: "streams closed early", command: sh("echo hi; exec >&- 2>&-; true"), want: exited(0), stdout: text("hi\n")},
		{name: "last words of a survivor", command: sh("(echo later) & wait; echo now"), want: exited(0), stdout: text("later\nnow\n")},
		{name: "orphans are reaped", command: sh("for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do (true &) ; done; exit 0"), resources: object{"max_pids": 30}, needs: []string{spec.LimitPids}, want: exited(0)},
		{name: "not found", command: []string{"/no/such"}, want: verdict{spec.StatusError, spec.ReasonSetupFailed, "E3003", -1, -1}},
		{name: "a child killed, the command well", command: sh("sleep 1000 & kill -9 $!; wait; exit 0"), want: exited(0)},
		{name: "stopped child", command: sh("sleep 1000 & kill -STOP $!; exit 6"), want: exited(6)},
		{name: "exit while stopped ones hold the pipes", command: sh("sh -c 'kill -STOP $$' & sleep 0.1; exit 3"), want: exited(3)},
		{name: "a tracer in the background", command: sh("/payload act traced & sleep 0.2; exit 8"), want: exited(8)},
	}
	for _, code := range []int{0, 1, 2, 7, 99, 124, 125, 126, 127, 137, 143, 255} {
		rows = append(rows, row{name: "exit " + strconv.Itoa(code), command: sh("exit " + strconv.Itoa(code)), want: exited(code)})
	}
	for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGILL, syscall.SIGABRT, syscall.SIGFPE, syscall.SIGKILL,
		syscall.SIGUSR1, syscall.SIGSEGV, syscall.SIGPIPE, syscall.SIGALRM, syscall.SIGTERM, syscall.SIGXCPU, syscall.SIGXFSZ} {
		rows = append(rows, row{name: "signal " + strconv.Itoa(int(s)), command: sh("kill -" + strconv.Itoa(int(s)) + " $$"), want: signaled(s)})
	}
	return append(rows,
		row{name: "rlimit fsize", command: sh("head -c 100000 /dev/zero >/tmp/x; exit 5"), resources: object{"rlimits": object{"fsize": 4096}}, want: exited(5)},
		row{name: "rlimit fsize kills", command: sh("exec head -c 100000 /dev/zero >/tmp/x"), resources: object{"rlimits": object{"fsize": 4096}}, want: signaled(syscall.SIGXFSZ)},
		row{name: "rlimit cpu", command: sh("while :; do :; done"), resources: object{"rlimits": object{"cpu": object{"soft": 1, "hard": 10}}}, want: signaled(syscall.SIGXCPU)},
		row{name: "rlimit nofile", command: sh("ulimit -n"), resources: object{"rlimits": object{"nofile": 32}}, want: exited(0), stdout: text("32\n")},
		row{name: "seccomp kills nobody by default", command: sh("unshare -U true 2>/dev/null; exit 0"), want: exited(0)},
	)
}

// unfiltered is the configuration of a host that lets a request do without the
// system call filter.
const unfiltered = "[security]\nallow_unconfined = true\n"

// clocks are the wall clock and the CPU time.
func clocks() []row {
	// Long enough for a payload on a busy machine to be ready for its SIGTERM.
	const ready = 2 * time.Second
	short := object{"timeout_ms": ms(ready), "grace_ms": ms(50 * time.Millisecond)}
	// The grace may be longer than the test waits: these end by SIGTERM.
	gentle := object{"timeout_ms": ms(ready), "grace_ms": 60000}
	state := func(want string) func(*testing.T, *spec.Response) {
		return func(t *testing.T, r *spec.Response) {
			if r.Enforcement.Limits[spec.LimitMemory] == spec.Absent {
				return // nobody knows the processes
			}
			if m, ok := detail(t, r, "processes").(map[string]any); !ok || m[want] == nil {
				t.Errorf("no %s process among %v", want, r.Error.Details)
			}
		}
	}
	late := ms(500 * time.Millisecond)
	spin := ms(300 * time.Millisecond)
	over := func(t *testing.T, r *spec.Response) {
		if m := r.Metrics.CPUTimeMS; m == nil || *m < float64(spin) {
			t.Errorf("cpu time %v, limit %d", show(m), spin)
		}
	}
	limit := object{"cpu_time_ms": spin}
	cpu := []string{spec.LimitCPUTime}
	return []row{
		{name: "sleep", command: []string{"sleep", "1000"}, request: gentle, want: timedOut(-1, 15), also: state("sleeping")},
		{name: "busy", command: sh("while :; do :; done"), request: gentle, want: timedOut(-1, 15), also: state("running")},
		{name: "stopped by itself", command: sh("kill -STOP $$"), request: gentle, want: timedOut(-1, 15), also: state("stopped")},
		{name: "tracing is refused by the filter", command: payload("traced"), want: exited(9)},
		{name: "tracing a child", command: payload("traced"), configuration: unfiltered, request: gentle, want: timedOut(-1, 15), also: state("traced")},
		{name: "uninterruptible", command: payload("uninterruptible"), request: gentle, want: timedOut(-1, 15), also: state("uninterruptible")},
		{name: "deaf", command: payload("deaf"), request: short, want: timedOut(-1, 9)},
		{name: "deaf descendants", command: sh(`trap "" TERM; (setsid sh -c 'trap "" TERM; sleep 1000' &); sleep 1000; sleep 1000`), request: short, want: timedOut(-1, 9)},
		{name: "polite", command: sh(`trap 'echo bye; exit 5' TERM; while :; do sleep 0.01; done`), request: gentle, want: timedOut(5, -1), stdout: text("bye\n")},
		{name: "polite with 0", command: sh(`trap 'exit 0' TERM; while :; do sleep 0.01; done`), request: gentle, want: timedOut(0, -1)},
		{name: "no grace", command: payload("deaf"), request: object{"timeout_ms": ms(ready), "grace_ms": 0}, want: timedOut(-1, 9)},
		{name: "exit long before", command: sh("exit 3"), request: object{"timeout_ms": 86400000}, want: exited(3)},
		{name: "the smallest time-out", command: []string{"sleep", "1000"}, request: object{"timeout_ms": 1, "grace_ms": 60000}, want: timedOut(-1, 15)},
		{name: "cpu time, one thread", command: payload("spin", "1000000"), resources: limit, needs: cpu, want: cpuOver, also: over},
		{name: "cpu time, two threads", command: payload("spin", "1000000", "2"), resources: limit, needs: cpu, want: cpuOver, also: over},
		{name: "cpu time, reaped children", command: payload("spin-reaped"), resources: limit, needs: cpu, want: cpuOver, also: over},
		{name: "cpu time, children in sessions", command: sh("for i in 1 2 3; do setsid /payload act spin 1000000 & done; sleep 1000"), resources: limit, needs: cpu, want: cpuOver, also: over},
		{name: "cpu time, not used", command: sh("sleep 0.3; exit 2"), resources: object{"cpu_time_ms": late * 4}, needs: cpu, want: exited(2)},
		{name: "exit and deadline at once", command: sh("sleep 0.3; exit 0"), request: object{"timeout_ms": 300, "grace_ms": 60000}, want: timedOut(-1, 15), or: []verdict{exited(0), timedOut(0, -1)},
			also: func(t *testing.T, r *spec.Response) {
				if wall := r.Metrics.WallTimeMS; wall == nil || r.Status == spec.StatusTimeout && *wall < 300 {
					t.Errorf("timed out after %v ms, the limit is 300", show(wall))
				}
			}},
	}
}

// small are the smallest limits that are accepted.
func small() []row {
	all := []string{spec.LimitMemory, spec.LimitPids, spec.LimitCPUShares}
	return []row{
		{name: "1 MiB of memory", command: []string{"true"}, resources: object{"memory_bytes": 1 << 20}, needs: all[:1], want: exited(0)},
		{name: "1 process", command: sh("exit 11"), resources: object{"max_pids": 1}, needs: all[1:2], want: exited(11)},
		{name: "1 process and a fork", command: sh("(exit 0); exit 0"), resources: object{"max_pids": 1}, needs: all[1:2], want: failed(spec.ReasonPidsLimit, "E4003", 2, -1)},
		{name: "no output", command: sh("echo hi; echo ho >&2"), resources: object{"max_output_bytes": 0}, want: exited(0), stdout: text("")},
		{name: "64 KiB of disk", command: sh("echo hi >/tmp/x; cat /tmp/x"), resources: object{"disk_bytes": 65536}, want: exited(0), stdout: text("hi\n")},
		{name: "fewest shares", command: sh("exit 0"), resources: object{"cpu_shares": 2}, needs: all[2:], want: exited(0)},
		{name: "most shares", command: sh("exit 0"), resources: object{"cpu_shares": 262144}, needs: all[2:], want: exited(0)},
		{name: "a hundredth of a core", command: sh("exit 0"), resources: object{"cpu_quota": 0.01}, needs: all[2:], want: exited(0)},
		{name: "all at once", command: sh("exit 12"), resources: object{"memory_bytes": 1 << 20, "max_pids": 1, "cpu_shares": 2, "max_output_bytes": 0, "disk_bytes": 65536}, needs: all, want: exited(12)},
	}
}

// asks are limits that the request spells out although they are the defaults.
func asks() []row {
	rows := []row{
		{name: "degraded when allowed", command: sh("exit 0"), resources: object{"memory_bytes": 268435456, "max_pids": 100, "cpu_shares": 1024},
			request: object{"isolation": object{"allow_degraded": []string{"memory", "pids", "cpu_shares"}}}, want: exited(0), also: visible},
		{name: "defaults are not asked for", command: sh("exit 0"), want: exited(0), also: visible},
		{name: "required", command: sh("exit 0"), request: object{"isolation": object{"require": []string{"memory"}}}, needs: []string{spec.LimitMemory}, want: exited(0)},
		{name: "bounded reads", command: sh("exit 0"), resources: object{"io": object{"read_bytes_per_second": 1 << 30, "read_ops_per_second": 1 << 20}},
			needs: []string{spec.LimitIO}, want: exited(0), also: ioHeld},
		{name: "bounded writes", command: sh("exit 0"), resources: object{"io": object{"write_bytes_per_second": 1 << 30, "write_ops_per_second": 2}},
			needs: []string{ioWrites}, want: exited(0), also: ioHeld},
		{name: "no bounds", command: sh("exit 0"), resources: object{"io": object{}}, want: exited(0)},
		{name: "bounds that may be missing", command: sh("exit 0"), resources: object{"io": object{"read_bytes_per_second": 1 << 30}},
			request: object{"isolation": object{"allow_degraded": []string{"io"}}}, want: exited(0), also: visible},
		{name: "rlimit above the hard limit", command: sh("exit 0"), resources: object{"rlimits": object{"nofile": 1 << 40}}, want: refused},
	}
	for key, limit := range map[string]string{"memory_bytes": spec.LimitMemory, "max_pids": spec.LimitPids, "cpu_shares": spec.LimitCPUShares} {
		value := map[string]int{"memory_bytes": 268435456, "max_pids": 100, "cpu_shares": 1024}[key]
		rows = append(rows, row{name: "asked for " + limit, command: sh("exit 0"), resources: object{key: value}, needs: []string{limit}, want: exited(0)})
	}
	return rows
}

func ioHeld(t *testing.T, r *spec.Response) {
	if state := r.Enforcement.Limits[spec.LimitIO]; state != spec.Enforced {
		t.Errorf("io is %q", state)
	}
}

// visible holds that what is not enforced is told.
func visible(t *testing.T, r *spec.Response) {
	for _, limit := range []string{spec.LimitMemory, spec.LimitPids, spec.LimitCPUShares, spec.LimitIO} {
		if r.Enforcement.Limits[limit] == spec.Absent && !strings.Contains(strings.Join(r.Warnings, "\n"), "limit "+limit+" is not enforced") {
			t.Errorf("%s is absent and no warning says so: %q", limit, r.Warnings)
		}
	}
}
