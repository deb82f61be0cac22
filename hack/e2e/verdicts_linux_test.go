package e2e

import (
	"math"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/capsule-run/capsule/spec"
)

// ms is a duration in the unit of requests.
func ms(d time.Duration) int64 { return d.Milliseconds() }

// TestExits covers the ends that a command finds by itself.
func TestExits(t *testing.T) {
	c := begin(t)
	dir := c.directory()
	for name, text := range map[string]string{"plain": "echo not reached\n", "lost": "#!/no/such/interpreter\n"} {
		if err := syscall.Chmod(c.write(dir, name, text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c.write(dir, "locked", "#!/bin/sh\necho not reached\n")
	signaled := func(n syscall.Signal) want {
		return want{spec.StatusKilled, spec.ReasonSignaled, "E3002", -1, int(n), 128 + int(n)}
	}
	failed := func(code int) want {
		return want{spec.StatusError, spec.ReasonSetupFailed, "E3003", -1, -1, code}
	}
	for _, v := range []struct {
		name    string
		command []string
		want    want
		says    string // in the error
	}{
		{"exit 0", sh("exit 0"), exited(0), ""},
		{"exit 7", sh("exit 7"), exited(7), ""},
		{"exit 255", sh("exit 255"), exited(255), ""},
		{"exit like a signal", sh("exit 137"), exited(137), ""},
		{"SIGSEGV", sh("kill -SEGV $$"), signaled(syscall.SIGSEGV), "segmentation fault"},
		{"SIGKILL of its own", sh("kill -KILL $$"), signaled(syscall.SIGKILL), "killed"},
		{"SIGTERM of its own", sh("kill -TERM $$"), signaled(syscall.SIGTERM), "terminated"},
		{"SIGABRT", python("import os; os.abort()"), signaled(syscall.SIGABRT), "aborted"},
		{"real-time signal", python("import os; os.kill(os.getpid(), 40)"), signaled(40), "40"},
		{"not found", []string{"/nowhere/at/all"}, failed(127), "not found"},
		{"not found in PATH", []string{"no-such-program"}, failed(127), "not found"},
		{"below a file", []string{"/etc/passwd/x"}, failed(127), "not found"},
		{"not executable", []string{dir + "/locked"}, failed(126), "no execute permission"},
		{"directory", []string{"/usr"}, failed(126), "directory"},
		{"script without a first line", []string{dir + "/plain"}, failed(126), "#!"},
		{"script of a lost interpreter", []string{dir + "/lost"}, failed(126), "interpreter"},
	} {
		t.Run(v.name, func(t *testing.T) {
			c := begin(t)
			o := c.run(object{"command": v.command, "isolation": object{"readonly_paths": []string{dir}}})
			o.is(t, v.want)
			if o.Error != nil && !strings.Contains(strings.ToLower(o.Error.Message), v.says) {
				t.Errorf("the error %q does not say %q", o.Error.Message, v.says)
			}
			if o.Error != nil && o.Error.Hint == "" {
				t.Errorf("no hint: %+v", o.Error)
			}
		})
	}
}

// TestOutOfMemory lets a process, or its child, take more than it may.
func TestOutOfMemory(t *testing.T) {
	needPrograms(t, "python3")
	c := begin(t)
	c.needLimits(spec.LimitMemory)
	const limit = 64 << 20
	// Bounded by itself too: at most 512 MiB.
	const hog = `
print("so far", flush=True)
all = [b"%07d" % i * (1 << 17) for i in range(512)]
print("not reached")`
	const quiet = `python3 -c '` + hog + `'; echo "status $?"; `
	killed := want{spec.StatusKilled, spec.ReasonOOM, "E4002", -1, 9, 137}
	for _, v := range []struct {
		name    string
		command []string
		want    want
		stdout  string
	}{
		{"itself", python(hog), killed, "so far\n"},
		{"behind exec", sh("exec python3 -c '" + hog + "'"), killed, "so far\n"},
		{"a child", sh(quiet + "sleep 1000"), killed, "so far\n"},
	} {
		t.Run(v.name, func(t *testing.T) {
			c := begin(t)
			o := c.run(object{"command": v.command, "resources": object{"memory_bytes": limit}})
			o.is(t, v.want)
			// On v1 the parent may be quicker than the end of its tree.
			if o.text() != v.stdout && (v.name != "a child" || o.text() != v.stdout+"status 137\n") {
				t.Errorf("stdout %q, want %q", o.text(), v.stdout)
			}
			if m := o.Metrics; m.OOMKills == nil || *m.OOMKills < 1 || m.MaxMemoryBytes == nil || math.Abs(float64(*m.MaxMemoryBytes)/limit-1) > 0.25 {
				t.Errorf("metrics %s", o.out)
			}
			if o.Error != nil && o.Error.Details["limit"] != "memory_bytes" {
				t.Errorf("details %v", o.Error.Details)
			}
		})
	}
	t.Run("files in memory", func(t *testing.T) {
		c := begin(t)
		o := c.run(object{"command": sh("head -c 200M /dev/zero >/tmp/x; echo status $?; exit 4"), "resources": object{"memory_bytes": limit, "disk_bytes": 32 << 20}})
		// The file system is full before the memory is.
		o.is(t, want{spec.StatusKilled, spec.ReasonDiskLimit, "E4004", 4, -1, 4})
		if o.text() != "status 1\n" || !strings.Contains(o.errors(), "No space left") && !strings.Contains(o.errors(), "too large") {
			t.Errorf("stdout %q, stderr %q", o.text(), o.errors())
		}
	})
}

// TestSmallestMemory wants the sandbox itself to need next to nothing of the
// payload's memory.
func TestSmallestMemory(t *testing.T) {
	c := begin(t)
	c.needLimits(spec.LimitMemory)
	o := c.run(object{"command": sh("echo alive"), "resources": object{"memory_bytes": 4 << 20}})
	o.printed(t, "alive\n")
	o = c.run(object{"command": sh("echo alive"), "resources": object{"memory_bytes": 1 << 20}})
	if o.Status == spec.StatusError {
		t.Errorf("%+v", o.Error)
	}
}

// TestForkBomb first counts, with a program that stops by itself, how many
// processes there can be, and only then lets one go that does not.
func TestForkBomb(t *testing.T) {
	needPrograms(t, "python3")
	c := begin(t)
	c.needLimits(spec.LimitPids)
	const most = 20
	resources := object{"max_pids": most}
	o := c.run(object{"resources": resources, "command": python(`
import os, signal, sys
n = 1
try:
    while n < 100:
        if os.fork() == 0: signal.pause()
        n += 1
except BlockingIOError: pass
print(n); sys.stdout.flush(); os.kill(0, signal.SIGKILL)`)})
	if o.text() != "20\n" || o.Metrics.MaxPids == nil || *o.Metrics.MaxPids != most {
		t.Fatalf("%s processes with max_pids %d: %s", o.text(), most, o.out)
	}
	o = c.runInTime(patient(time.Second), object{"resources": resources, "grace_ms": 100, "command": python(`
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    try: os.fork() or os.setsid()
    except OSError: time.sleep(0.01)`)}, func(o outcome) bool { return o.Metrics.MaxPids != nil && *o.Metrics.MaxPids == most })
	o.is(t, want{spec.StatusTimeout, spec.ReasonTimeoutWall, "E3001", -1, 9, 124})
	if m := o.Metrics.MaxPids; m == nil || *m != most {
		t.Errorf("max_pids in %s", o.out)
	}
}

// TestTimeouts wants the end within the time-out, the grace and a moment, and
// nothing left of trees that do what they can to survive.
func TestTimeouts(t *testing.T) {
	needPrograms(t, "setsid")
	grace := patient(200 * time.Millisecond)
	const deaf = `trap "" TERM INT HUP; `
	timedOut := func(exit, signal int) want {
		return want{spec.StatusTimeout, spec.ReasonTimeoutWall, "E3001", exit, signal, 124}
	}
	for _, v := range []struct {
		name    string
		command []string
		graced  bool // it is killed only after the grace
		want    want
		stdout  string
	}{
		{"sleep", []string{"sleep", "1000"}, false, timedOut(-1, 15), ""},
		{"deaf", sh(deaf + "echo here; while :; do sleep 1000; done"), true, timedOut(-1, 9), "here\n"},
		{"polite", sh(`trap 'echo bye; exit 5' TERM; echo hello; while :; do sleep 0.01; done`), false, timedOut(5, -1), "hello\nbye\n"},
		{"stopped", sh(`kill -STOP $$; echo not reached`), false, timedOut(-1, 15), ""},
		{"double fork", sh(deaf + `(setsid sh -c 'trap "" TERM; (sleep 1000 & sleep 1000) & sleep 1000' &) ; echo here; exec sleep 1000`), true, timedOut(-1, 9), "here\n"},
		{"closed streams", sh(deaf + `for i in 1 2 3 4 5; do setsid sh -c '(exec 0<&- 1>&- 2>&-; sleep 1000; sleep 1000) & sleep 1000' & done; echo here; while :; do sleep 1000; done`), true, timedOut(-1, 9), "here\n"},
		{"busy", sh("while :; do :; done"), false, timedOut(-1, 15), ""},
	} {
		t.Run(v.name, func(t *testing.T) {
			c := begin(t)
			grace := grace
			if !v.graced {
				grace = time.Minute // the longest; it ends long before
			}
			request := object{"command": v.command, "grace_ms": ms(grace)}
			o := c.runInTime(patient(300*time.Millisecond), request, func(o outcome) bool { return v.stdout == "" || said(o) })
			timeout := time.Duration(request["timeout_ms"].(int64)) * time.Millisecond
			o.is(t, v.want)
			if o.text() != v.stdout {
				t.Errorf("stdout %q, want %q", o.text(), v.stdout)
			}
			// The upper bound is about trees that are waited for, not about speed.
			least, most := timeout, timeout+patient(5*time.Second)
			if v.graced {
				least += grace
			}
			if w := *o.Metrics.WallTimeMS; w < float64(ms(least)) || w > float64(ms(most)) {
				t.Errorf("wall time %v ms, want %v..%v", w, least, most)
			}
		})
	}
}

// TestCPUTime wants the sum of all processes to count, also of those that ended.
func TestCPUTime(t *testing.T) {
	c := begin(t)
	c.needLimits(spec.LimitMemory) // CPU time is counted by the same means
	for name, script := range map[string]string{
		"one process":    "while :; do :; done",
		"many processes": `while :; do sh -c 'i=0; while [ $i -lt 5000 ]; do i=$((i+1)); done'; done`,
	} {
		t.Run(name, func(t *testing.T) {
			c := begin(t)
			o := c.run(object{"command": sh(script), "resources": object{"cpu_time_ms": 300}})
			o.is(t, want{spec.StatusKilled, spec.ReasonTimeoutCPU, "E4005", -1, 9, 137})
			if m := o.Metrics.CPUTimeMS; m == nil || *m < 300 {
				t.Errorf("cpu time in %s", o.out)
			}
		})
	}
}

// TestCPUQuota wants a payload to be held to its part of a core, and told.
func TestCPUQuota(t *testing.T) {
	c := begin(t)
	c.needLimits(spec.LimitCPUShares)
	o := c.run(object{"command": sh("i=0; while [ $i -lt " + decimal(200000/slow()) + " ]; do i=$((i+1)); done"), "resources": object{"cpu_quota": 0.2}})
	o.is(t, exited(0))
	if m := o.Metrics; o.Enforcement.Limits[spec.LimitCPUQuota] != spec.Enforced || m.ThrottledMS == nil || *m.ThrottledMS <= 0 || *m.WallTimeMS < 2**m.CPUTimeMS {
		t.Errorf("metrics %s", o.out)
	}
}
