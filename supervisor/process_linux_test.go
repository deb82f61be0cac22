package supervisor

import (
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/shim/shimapi"
)

func TestProcessIsKilledAndReapedOnce(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	s := &Supervisor{shim: "/bin/sleep"}
	p, err := s.startProcess([]string{"sleep", "1000"}, null, null, null)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(p.pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(time.Millisecond, p.kill)
	p.wait()
	if err := unix.Kill(p.pid, 0); err != unix.ESRCH {
		t.Errorf("it is still there: %v", err)
	}
	// Neither touches whoever has the number now.
	p.kill()
	p.wait()
}

// TestPatient: a shim's timers are late, and those of the thread that starts it are not for
// longer than that.
func TestPatient(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	slack := func() int {
		n, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := slack()
	restore := patient()
	if got := slack(); got != shimapi.TimerSlack {
		t.Errorf("%d ns, want %d", got, shimapi.TimerSlack)
	}
	restore()
	if got := slack(); got != before || got == shimapi.TimerSlack {
		t.Errorf("%d ns, before %d", got, before)
	}
}

func TestWithinGivesUp(t *testing.T) {
	hold := make(chan struct{})
	defer close(hold)
	within(time.Millisecond, func() bool { <-hold; return true })
}
