package launch

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A number that is closed twice may belong to somebody else the second time.
func TestEachDescriptorIsClosedOnce(t *testing.T) {
	open := func() int {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	fd := open()
	s := &Sandbox{pidfd: fd, payload: fd, status: open()} // as without an init
	other := make(chan int)
	go func() {
		// Takes the number as soon as it is free.
		for {
			n := open()
			if n == fd {
				other <- n
				return
			}
			unix.Close(n)
		}
	}()
	s.closeAll()
	n := <-other
	if _, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0); err != nil {
		t.Errorf("descriptor %d of somebody else: %v", n, err)
	}
	unix.Close(n)
	if s.pidfd != -1 || s.payload != -1 || s.status != -1 {
		t.Errorf("left: %+v", s)
	}
}
