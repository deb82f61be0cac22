package supervisor

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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

func TestWithinGivesUp(t *testing.T) {
	hold := make(chan struct{})
	defer close(hold)
	within(time.Millisecond, func() bool { <-hold; return true })
}
