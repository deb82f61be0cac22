package escape

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec"
)

// verdict checks why an execution ended.
func verdict(t *testing.T, a answer, status spec.Status, reason spec.Reason) {
	t.Helper()
	if a.Status != status || a.Termination.Reason != reason {
		t.Errorf("%s, %s instead of %s, %s: %+v\n%.300s", a.Status, a.Termination.Reason, status, reason, a.Error, a.out)
	}
}

// needLimit skips a test where nobody enforces a limit: an unprivileged user
// without a control group of its own.
func needLimit(t *testing.T, name string) {
	t.Helper()
	a := run(t, request([]string{"ids"}))
	if a.Enforcement == nil {
		t.Fatalf("%+v", a.Error)
	}
	if rootless() && a.Enforcement.Limits[name] != spec.Enforced {
		t.Skip("needs limit " + name)
	}
}

// TestDeadlineEndsEverything: sessions of their own, ignored signals and
// orphans end with the deadline.
func TestDeadlineEndsEverything(t *testing.T) {
	begin(t)
	a := run(t, request([]string{"linger:20", "linger:20", "sleep:20"}, field("timeout_ms", 400), field("grace_ms", 100)))
	verdict(t, a, spec.StatusTimeout, spec.ReasonTimeoutWall)
	a = run(t, request(nil, field("command", []string{"/bin/sh", "-c", `trap "" TERM; sleep 20 & wait; sleep 20`}), field("timeout_ms", 400), field("grace_ms", 100)))
	verdict(t, a, spec.StatusTimeout, spec.ReasonTimeoutWall)
}

// TestSurvivorsEndWithTheCommand: what a command leaves is killed when it ends.
func TestSurvivorsEndWithTheCommand(t *testing.T) {
	begin(t)
	a := run(t, request([]string{"linger:30", "exit:7"}))
	verdict(t, a, spec.StatusSuccess, spec.ReasonExited)
	if a.exit != 7 || a.Timestamps.Completed == nil {
		t.Errorf("exit %d", a.exit)
	}
}

// TestMemoryLimit kills who takes more, and says so.
func TestMemoryLimit(t *testing.T) {
	needLimit(t, spec.LimitMemory)
	begin(t)
	a := run(t, request([]string{"eat:300"}, resource("memory_bytes", 128<<20)))
	verdict(t, a, spec.StatusKilled, spec.ReasonOOM)
}

// TestProcessLimit bounds what can be started; the attack itself starts no
// more than 150.
func TestProcessLimit(t *testing.T) {
	needLimit(t, spec.LimitPids)
	begin(t)
	got := run(t, request([]string{"spawn:150"}, resource("max_pids", 40), resource("rlimits", object{"nproc": 1000}))).results()
	if got["spawn:150"] != "some" {
		t.Errorf("%v", got)
	}
}

// TestDiskLimit: a full file system is ENOSPC, not a kill.
func TestDiskLimit(t *testing.T) {
	begin(t)
	want := map[string]string{}
	for _, dir := range []string{"/tmp", "/workspace", "/var/tmp", "/run", "/dev/shm"} {
		want["fill:"+dir+"/x"] = "ENOSPC or EFBIG or SIGXFSZ"
	}
	expect(t, want, resource("disk_bytes", 8<<20), resource("rlimits", object{"fsize": 1 << 30}))
}

// TestOutputLimit keeps what was asked for and counts the rest.
func TestOutputLimit(t *testing.T) {
	begin(t)
	a := run(t, request([]string{"flood:64"}, resource("max_output_bytes", 1000)))
	verdict(t, a, spec.StatusSuccess, spec.ReasonExited)
	if len(a.out) != 1000 || a.Output == nil || !a.Output.Stdout.Truncated || a.Output.Stdout.BytesTotal != 64<<10+int64(len("flood:64 flooded\n")) {
		t.Errorf("%d bytes, %+v", len(a.out), a.Output)
	}
}

// TestTheShimTakesItsSandboxAlong: kill -9 of the shim ends every process of
// the sandbox.
func TestTheShimTakesItsSandboxAlong(t *testing.T) {
	begin(t)
	h := hold(t, []string{"linger:60"})
	shims, err := filepath.Glob(filepath.Join(stateDir(), "executions", "*", "shim.json"))
	must(t, err)
	for end := time.Now().Add(patient(10 * time.Second)); len(shims) == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond) // it is written beside the command
		shims, _ = filepath.Glob(filepath.Join(stateDir(), "executions", "*", "shim.json"))
	}
	if len(shims) != 1 {
		t.Fatalf("%v", shims)
	}
	text, err := os.ReadFile(shims[0])
	must(t, err)
	var shim struct{ PID int }
	must(t, json.Unmarshal(text, &shim))
	members := descendants(shim.PID)
	if len(members) < 3 {
		t.Fatalf("only %v are in the sandbox", members)
	}
	// capsulectl would kill what it finds; the kernel is to do it alone.
	must(t, h.cmd.Process.Signal(unix.SIGSTOP))
	must(t, unix.Kill(shim.PID, unix.SIGKILL)) // a child of our child: its number is not given out while capsulectl lives
	for _, pid := range members {
		for end := time.Now().Add(patient(10 * time.Second)); alive(pid); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Errorf("process %d outlives its shim", pid)
				break
			}
		}
	}
	must(t, h.cmd.Process.Signal(unix.SIGCONT))
	h.end()
	// The next execution finds the directory of the dead shim and removes it.
	run(t, request([]string{"ids"}))
}

// descendants are the processes below pid.
func descendants(pid int) []int {
	var all []int
	tasks, _ := filepath.Glob(fmt.Sprint("/proc/", pid, "/task/*/children"))
	for _, task := range tasks {
		text, _ := os.ReadFile(task)
		for rest := string(text); ; {
			var child int
			if n, _ := fmt.Sscan(rest, &child); n != 1 {
				break
			}
			all = append(append(all, child), descendants(child)...)
			_, rest, _ = cutSpace(rest)
		}
	}
	return all
}

func cutSpace(text string) (before, after string, found bool) {
	for i, c := range text {
		if c == ' ' {
			return text[:i], text[i+1:], true
		}
	}
	return text, "", false
}

// alive tells whether a process runs; one that has ended and waits to be reaped
// does not.
func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprint("/proc/", pid, "/stat"))
	if err != nil {
		return false
	}
	for i := len(text) - 1; i > 0; i-- {
		if text[i] == ')' {
			return i+2 < len(text) && text[i+2] != 'Z' && text[i+2] != 'X'
		}
	}
	return false
}
