package slack

import (
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDuring: a child has it, and the thread has its own again.
func TestDuring(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own := func() int {
		n, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := own()
	During(before+1234, func() {
		if got := own(); got != before+1234 {
			t.Errorf("%d ns, want %d", got, before+1234)
		}
	})
	if got := own(); got != before {
		t.Errorf("%d ns, before %d", got, before)
	}
	var said []byte
	var err error
	During(777_000, func() { said, err = exec.Command("cat", "/proc/self/timerslack_ns").Output() })
	if err != nil || string(said) != "777000\n" {
		t.Errorf("%q, %v", said, err)
	}
}
