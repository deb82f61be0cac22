package output

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// fionread is FIONREAD of <sys/filio.h>, _IOR('f', 127, int), which x/sys lacks.
const fionread = 0x4004667f

// makePipe makes a close-on-exec pipe whose read end alone is non-blocking.
// The lock keeps a concurrent fork from inheriting the ends before they are
// marked: this system has no pipe2.
func makePipe() (r, w int, err error) {
	var p [2]int
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := unix.Pipe(p[:]); err != nil {
		return -1, -1, err
	}
	unix.CloseOnExec(p[0])
	unix.CloseOnExec(p[1])
	if err := unix.SetNonblock(p[0], true); err != nil {
		unix.Close(p[0]) // Nothing was written.
		unix.Close(p[1])
		return -1, -1, err
	}
	return p[0], p[1], nil
}

// readNow reads what is there. EAGAIN: nothing.
func readNow(fd int, p []byte) (int, error) {
	for {
		n, err := unix.Read(fd, p)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}

// widenPipe does nothing: the kernel sizes its pipes itself.
func widenPipe(int) {}

// queued is the number of bytes in the pipe.
func queued(fd int) (int, error) { return unix.IoctlGetInt(fd, fionread) }

// writersGone tells whether every write end of the pipe is closed.
func writersGone(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1 && p[0].Revents&unix.POLLHUP != 0
}

// createAt makes a new file in dir.
func createAt(dir int, name string) (*os.File, error) {
	const flags = unix.O_RDWR | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	for {
		fd, err := unix.Openat(dir, name, flags, 0o600)
		if err == nil {
			return os.NewFile(uintptr(fd), name), nil
		}
		if err != unix.EINTR {
			return nil, err
		}
	}
}

// discarder would drop bytes unread; this system has no splice.
type discarder struct{}

// from tells that the bytes have to be read.
func (discarder) from(int) (n int, err error, able bool) { return 0, nil, false }

// close has nothing to give back.
func (discarder) close() {}
