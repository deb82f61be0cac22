package stress

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/spec"
)

// wait lets a random time pass. Where it strikes is the point of these tests.
func wait(upTo time.Duration) { time.Sleep(rand.N(upTo)) }

func TestManyAtOnce(t *testing.T) {
	if o := run(t, "--", "true"); !o.is(spec.ReasonExited, "") { // compiles the filter
		t.Fatalf("%v", o)
	}
	together(scaled(500), 16, func(i int) {
		o := run(t, "--", "sh", "-c", "echo $0; echo no >&2; exit $1", strconv.Itoa(i), strconv.Itoa(i%200))
		if !o.is(spec.ReasonExited, "") || o.ExitCode == nil || *o.ExitCode != i%200 || *o.Stdout != strconv.Itoa(i)+"\n" || *o.Stderr != "no\n" {
			t.Errorf("execution %d: %v", i, o)
		}
	})
	nothingLeft(t)
}

// Kill -9 of the caller: the shims notice, end their sandboxes and clean up.
func TestKilledCallers(t *testing.T) {
	together(scaled(50), 4, func(int) {
		cmd := command(t, "--", "sh", "-c", "sleep 1000 & sleep 1000")
		if err := cmd.Start(); err != nil {
			t.Error(err)
			return
		}
		wait(40 * time.Millisecond)
		_ = cmd.Process.Kill() // it may have failed already, which Wait tells
		if err := cmd.Wait(); err == nil {
			t.Error("capsulectl ended well before its command")
		}
	})
	eventually(t, processes, groups, locks, mounts)
	sweepByStart(t)
}

// sweepByStart starts one execution, after which nothing may be left.
func sweepByStart(t *testing.T) {
	t.Helper()
	if o := run(t, "--", "true"); !o.is(spec.ReasonExited, "") {
		t.Errorf("the next start: %v", o)
	}
	nothingLeft(t)
}

// shimOf waits for the shim of a capsulectl and returns a pidfd of it, once it
// has begun: in the place of one that waited in vain another is started. -1:
// capsulectl ended before.
func shimOf(cmd *exec.Cmd) int {
	for !ended(cmd) {
		for _, pid := range children(cmd.Process.Pid) {
			fd, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				continue
			}
			// Not the sweep, and not a child that Go's os package tries pidfds with.
			line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			lock, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, shimapi.LockFD)) // gone: it ended
			if err == nil && string(line) == "capsule-shim\x00" && strings.HasPrefix(lock, "/") {
				return fd
			}
			unix.Close(fd)
		}
		time.Sleep(100 * time.Microsecond) // a child has no event for its grandparent
	}
	return -1
}

// ended tells whether a command is dead, which leaves its status to Wait.
func ended(cmd *exec.Cmd) bool {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, cmd.Process.Pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return err == nil && info.Signo != 0
}

// killShim starts an execution, kills its shim at a random moment, and with
// both its caller in the same.
func killShim(t *testing.T, both bool, upTo time.Duration, args ...string) outcome {
	t.Helper()
	cmd := command(t, append([]string{"--output", "json", "--"}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Error(err)
		return outcome{}
	}
	if shim := shimOf(cmd); shim >= 0 {
		wait(upTo)
		_ = unix.PidfdSendSignal(shim, unix.SIGKILL, nil, 0) // ESRCH: it was done, and the result is true
		unix.Close(shim)
	}
	if both {
		_ = cmd.Process.Kill() // it may have ended, which Wait tells
	}
	return result(t, cmd, cmd.Wait(), stdout.String(), stderr.String())
}

// Kill -9 of the shim: a true result or none, and the sandbox dies with it.
func TestKilledShims(t *testing.T) {
	lost := 0
	for range scaled(30) {
		o := killShim(t, false, 30*time.Millisecond, "sh", "-c", "echo done; exit 5")
		switch {
		case o.is(spec.ReasonShimLost, "E6005"):
			lost++
		case o.is(spec.ReasonExited, "") && o.ExitCode != nil && *o.ExitCode == 5 && *o.Stdout == "done\n":
		default:
			t.Errorf("neither lost nor true: %v", o)
		}
		nothingLives(t)
	}
	t.Logf("%d of %d were lost", lost, scaled(30))
	sweepByStart(t)
}

// The payload is to end with the shim wherever it is.
func TestKilledShimsOfLongCommands(t *testing.T) {
	together(scaled(20), 4, func(int) {
		o := killShim(t, false, 30*time.Millisecond, "sh", "-c", "setsid sleep 1000 & sleep 1000")
		if !o.is(spec.ReasonShimLost, "E6005") {
			t.Errorf("not lost: %v", o)
		}
	})
	nothingLives(t)
	sweepByStart(t)
}

func TestKilledShimsAndCallers(t *testing.T) {
	together(scaled(20), 4, func(int) {
		killShim(t, true, 30*time.Millisecond, "sh", "-c", "setsid sleep 1000 & sleep 1000")
	})
	nothingLives(t)
	sweepByStart(t)
}

// Without an init, the payload itself is process 1.
func TestKilledShimsWithoutInit(t *testing.T) {
	together(scaled(20), 4, func(int) {
		cmd := command(t, "--json")
		cmd.Stdin = strings.NewReader(`{"command":["sleep","1000"],"isolation":{"init":false}}`)
		if err := cmd.Start(); err != nil {
			t.Error(err)
			return
		}
		if shim := shimOf(cmd); shim >= 0 {
			wait(15 * time.Millisecond)
			_ = unix.PidfdSendSignal(shim, unix.SIGKILL, nil, 0) // ESRCH: it has failed, which Wait tells
			unix.Close(shim)
		}
		if err := cmd.Wait(); err == nil {
			t.Error("capsulectl ended well before its command")
		}
	})
	nothingLives(t)
	sweepByStart(t)
}

// A signal to capsulectl ends the command whenever it comes.
func TestSignalledCallers(t *testing.T) {
	together(scaled(40), 4, func(int) {
		cmd := command(t, "--", "sleep", "1000")
		if err := cmd.Start(); err != nil {
			t.Error(err)
			return
		}
		wait(20 * time.Millisecond)
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		start := time.Now()
		if err := cmd.Wait(); err == nil || time.Since(start) > patient(30*time.Second) {
			t.Errorf("the signal was lost: %v after %v", err, time.Since(start))
		}
	})
	nothingLives(t)
	sweepByStart(t)
}

// A shim that is stopped does not hold its caller for ever.
func TestStoppedShim(t *testing.T) {
	cmd := command(t, "--output", "json", "--", "sleep", "1000")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	shim := shimOf(cmd)
	if shim < 0 {
		t.Fatal("no shim")
	}
	defer unix.Close(shim)
	if err := unix.PidfdSendSignal(shim, unix.SIGSTOP, nil, 0); err != nil {
		t.Error(err)
	}
	wait(20 * time.Millisecond)
	for range 3 { // the third is for the impatient
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		wait(20 * time.Millisecond)
	}
	if err := cmd.Wait(); err == nil {
		t.Errorf("it ended well: %s", stdout.String())
	}
	if err := unix.PidfdSendSignal(shim, unix.SIGCONT, nil, 0); err != nil && err != unix.ESRCH {
		t.Error(err)
	}
	nothingLives(t)
	sweepByStart(t)
}

// One id, two callers: one of them runs.
func TestOneIDTwice(t *testing.T) {
	for range scaled(20) {
		id := newID()
		dir, err := os.MkdirTemp(scratch(), "twice-")
		if err == nil {
			err = os.Chmod(dir, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		outcomes := make([]outcome, 2)
		together(2, 2, func(i int) {
			cmd := command(t, "--execution-id", id, "--output", "json", "--readonly", dir, "--", "sh", "-c", "until [ -e $0/refused ]; do sleep 0.01; done", dir)
			cmd.Args = append(cmd.Args[:2], cmd.Args[4:]...) // without the id that command gave
			outcomes[i] = finish(t, cmd)
			// The other may end now: however late the second comes, it meets the first.
			if err := os.WriteFile(filepath.Join(dir, "refused"), nil, 0o644); err != nil {
				t.Error(err)
			}
		})
		ran, refused := 0, 0
		for _, o := range outcomes {
			switch {
			case o.is(spec.ReasonExited, ""):
				ran++
			case o.is(spec.ReasonRefused, "E1001"):
				refused++
			}
		}
		if ran != 1 || refused != 1 {
			t.Errorf("%d ran, %d were refused: %v", ran, refused, outcomes)
		}
	}
	nothingLeft(t)
}
