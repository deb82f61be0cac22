package launch

import (
	"os"
	"os/exec"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sleeper starts a child that lives until the test ends, and gives a pidfd of it.
func sleeper(t *testing.T) (pid, pidfd int) {
	t.Helper()
	cmd := exec.Command("cat")
	hold, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(fd)
		hold.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	return cmd.Process.Pid, fd
}

// TestForgedBirth: the first process of a sandbox is a child of the launcher, whatever comes by
// the line, which a container may have taken.
func TestForgedBirth(t *testing.T) {
	pid, own := sleeper(t)
	parent, err := unix.PidfdOpen(os.Getppid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(parent)
	file, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(file)
	for _, c := range []struct {
		name    string
		fd, pid int
		born    bool
	}{
		{"the child", own, pid, true},
		{"another number", own, os.Getppid(), false},
		{"another process", parent, os.Getppid(), false},
		{"another process by the child's number", parent, pid, false},
		{"a file", file, pid, false},
	} {
		ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		r := report{kind: reportBorn, value: uint32(c.pid)}
		if err := unix.Sendmsg(ends[1], (*[reportSize]byte)(unsafe.Pointer(&r))[:], unix.UnixRights(c.fd), nil, 0); err != nil {
			t.Fatal(err)
		}
		s := &Sandbox{Pid: -1, pidfd: -1, status: ends[0], unborn: true}
		got, fds, err := s.receive()
		if err != nil {
			t.Fatal(err)
		}
		if born := s.bear(got, fds); born != c.born || born != (s.Pid == c.pid) || born == s.unborn {
			t.Errorf("%s: born %v as %d", c.name, born, s.Pid)
		}
		unix.Close(ends[0])
		unix.Close(ends[1])
		if s.pidfd >= 0 {
			unix.Close(s.pidfd)
		}
	}
}
