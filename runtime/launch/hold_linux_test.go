package launch

import (
	"errors"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/spec/fault"
)

// hold builds a sandbox that waits, and returns what else would be compiled for
// another command in the same sandbox.
func hold(t testing.TB) (sb *Sandbox, output *os.File, compile func(args ...string) *plan.Plan) {
	t.Helper()
	s := baseSpec("sh", "-c", "exit 99")
	f := facts(t, s)
	p, err := plan.Compile(s, f)
	if err != nil {
		t.Fatal(err)
	}
	stdin, stdinWriter, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); stdinWriter.Close() })
	pr, err := Prepare(p, Options{Stdin: int(stdin.Fd()), Stdout: int(w.Fd()), Stderr: int(w.Fd()), CgroupFD: -1, Hold: true})
	if err != nil {
		t.Fatal(err)
	}
	if sb, err = pr.Start(); err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	w.Close()
	if err := sb.Held(); err != nil {
		t.Fatal(err)
	}
	f.NoStdin = true // whose reader would wait for ever on the pipe
	return sb, r, func(args ...string) *plan.Plan {
		other := baseSpec(args...)
		other.Process.Env = append(other.Process.Env, "GIVEN=late")
		p, err := plan.Compile(other, f)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
}

// TestHeldSandbox: the command comes after the sandbox, with its arguments, its
// environment and its standard input.
func TestHeldSandbox(t *testing.T) {
	sb, r, compile := hold(t)
	p := compile("sh", "-c", "echo $GIVEN; id -u; cat; ls /proc/self/fd | wc -l; exit 7")
	if !sb.Takes(p) {
		t.Fatal("the plan of the same sandbox is not taken")
	}
	if err := sb.Release(p); err != nil {
		t.Fatal(err)
	}
	if _, err := sb.Started(); err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	exit, err := sb.Exited()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sb.Reap(); err != nil {
		t.Fatal(err)
	}
	if want := "late\n1000\n4\n"; string(out) != want || exit.Status.ExitStatus() != 7 {
		t.Errorf("output %q, status %v; want %q and 7", out, exit.Status, want)
	}
}

// TestHeldSandboxErrors: what is wrong with a command is told as without a wait.
func TestHeldSandboxErrors(t *testing.T) {
	sb, _, compile := hold(t)
	defer sb.Abandon()
	if err := sb.Release(compile("does-not-exist")); err != nil {
		t.Fatal(err)
	}
	_, err := sb.Started()
	var f *fault.Fault
	if !errors.As(err, &f) || f.Code != fault.CommandNotFound || f.Details["errno"] != "ENOENT" {
		t.Errorf("%v, want E3003 with ENOENT", err)
	}
}

// TestHeldSandboxTakes: only plans that build the same sandbox, and whose command
// has room, are taken.
func TestHeldSandboxTakes(t *testing.T) {
	sb, _, compile := hold(t)
	defer sb.Abandon()
	if p := compile("true", strings.Repeat("x", lateSize)); sb.Takes(p) {
		t.Error("a command without room is taken")
	}
	p := compile("true")
	p.Setup = p.Setup[:len(p.Setup)-1]
	if sb.Takes(p) {
		t.Error("a plan that builds less is taken")
	}
}

// TestHeldSandboxEndsWithItsLauncher: the end of the status socket, which is what a
// launcher's death looks like, ends the wait and every process.
func TestHeldSandboxEndsWithItsLauncher(t *testing.T) {
	sb, r, _ := hold(t)
	unix.Close(sb.status)
	sb.status = -1
	status, _, err := waitPidfd(sb.pidfd, sb.Pid)
	if err != nil || status.ExitStatus() != 1 {
		t.Errorf("process 1: %v, %v; want exit status 1", status, err)
	}
	if _, err := io.ReadAll(r); err != nil { // ends only when nobody holds the pipe
		t.Error(err)
	}
	sb.closeAll()
}

// TestInitWaitsToBeReaped: process 1 has nothing left to do and sleeps, since its end would
// have the processor that its launcher needs, until the launcher is through.
func TestInitWaitsToBeReaped(t *testing.T) {
	sb, _, compile := hold(t)
	if err := sb.Release(compile("/usr/bin/true")); err != nil {
		t.Fatal(err)
	}
	if _, err := sb.Started(); err != nil {
		t.Fatal(err)
	}
	if exit, err := sb.Exited(); err != nil || !exit.Alone {
		t.Fatalf("%+v, %v", exit, err)
	}
	state := ""
	for end := time.Now().Add(10 * time.Second); state != "S" && time.Now().Before(end); {
		text, err := os.ReadFile("/proc/" + strconv.Itoa(sb.Pid) + "/stat")
		if err != nil {
			t.Fatal(err)
		}
		_, after, _ := strings.Cut(string(text), ") ")
		if state, _, _ = strings.Cut(after, " "); state == "Z" || state == "X" {
			break
		}
	}
	if state != "S" {
		t.Errorf("process 1 is in state %q and does not wait", state)
	}
	// Nobody kills it: Reap returns because it goes by itself.
	if _, err := sb.Reap(); err != nil {
		t.Error(err)
	}
}

// TestHeldSandboxWaitsThroughSignals: a signal that comes to the thread which looks, as Go's
// scheduler sends them, is no end of the sandbox.
func TestHeldSandboxWaitsThroughSignals(t *testing.T) {
	sb, _, _ := hold(t)
	defer sb.Abandon()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, tid := os.Getpid(), unix.Gettid()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Tgkill(pid, tid, unix.SIGURG) // the thread is locked and lives
			}
		}
	}()
	for range 100_000 {
		if !sb.Waits() {
			t.Error("it is taken for one that has ended")
			break
		}
	}
	close(stop)
	<-stopped
}

// BenchmarkRelease is what is left to do when the sandbox waits.
func BenchmarkRelease(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		sb, _, compile := hold(b)
		p := compile("/usr/bin/true")
		b.StartTimer()
		if err := sb.Release(p); err != nil {
			b.Fatal(err)
		}
		if _, err := sb.Started(); err != nil {
			b.Fatal(err)
		}
		if _, err := sb.Exited(); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if _, err := sb.Reap(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
