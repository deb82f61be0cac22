package launch

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/plan"
)

// Without an init, execve shows by the end of the socket. So does a death in
// the set-up, which is not to be taken for it.
func TestEndOfSocketIsExecveOnlyWhenReady(t *testing.T) {
	for _, ready := range []bool{false, true} {
		ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if ready {
			if _, err := unix.Write(ends[1], []byte{1}); err != nil {
				t.Fatal(err)
			}
		}
		unix.Close(ends[1])
		s := &Sandbox{plan: &plan.Plan{}, pidfd: -1, payload: -1, status: ends[0]}
		if _, err := s.Started(); (err == nil) != ready {
			t.Errorf("ready %v: %v", ready, err)
		}
		s.closeAll()
	}
}
