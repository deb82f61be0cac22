package output

import (
	"os"

	"golang.org/x/sys/unix"
)

// makePipe makes a close-on-exec pipe whose read end alone is non-blocking:
// the flag belongs to one end, and a payload must not meet EAGAIN.
func makePipe() (r, w int, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return -1, -1, err
	}
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

// widenPipe makes room for more between two reads. The kernel refuses it to a
// user who holds too many large pipes; the pipe then works as it is.
func widenPipe(fd int) {
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, widePipe)
}

// queued is the number of bytes in the pipe.
func queued(fd int) (int, error) { return unix.IoctlGetInt(fd, unix.TIOCINQ) }

// writersGone tells whether every write end of the pipe is closed.
func writersGone(fd int) bool {
	got, err := look(fd, unix.POLLIN)
	return err == nil && got&unix.POLLHUP != 0
}

// look tells what poll(2) has of a descriptor now; 0: nothing. A signal of Go's scheduler may
// interrupt even a call that does not wait.
func look(fd int, events int16) (got int16, err error) {
	p := []unix.PollFd{{Fd: int32(fd), Events: events}}
	for err = unix.EINTR; err == unix.EINTR; {
		_, err = unix.Poll(p, 0)
	}
	return p[0].Revents, err
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

// PassPipe makes a pipe for PipeTo, whose ends both wait in Go's poller. size is how many
// bytes it holds, if the user may have such a pipe. The caller closes both.
func PassPipe(size int) (r, w *os.File, err error) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	_, _ = unix.FcntlInt(uintptr(ends[1]), unix.F_SETPIPE_SZ, size) // refused, it works as it is
	return os.NewFile(uintptr(ends[0]), "pipe"), os.NewFile(uintptr(ends[1]), "pipe"), nil
}

// readable tells whether a pipe holds something, or nobody writes into it any more.
func readable(fd int) bool {
	got, err := look(fd, unix.POLLIN)
	return err != nil || got != 0
}

// writable tells whether a pipe has room, or nobody reads it any more.
func writable(fd int) bool {
	got, err := look(fd, unix.POLLOUT)
	return err != nil || got != 0
}

// moveNow moves what is there from a pipe to another, up to 1 MiB. EAGAIN: nothing
// is there, or the other is full.
func moveNow(from, to int) (int, error) {
	for {
		n, err := unix.Splice(from, nil, to, nil, 1<<20, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		if err != unix.EINTR {
			return int(max(n, 0)), err
		}
	}
}

// discarder drops what a pipe holds by moving its pages to /dev/null, which
// spares the copy. The zero value is ready.
type discarder struct {
	null   int
	opened bool
	unable bool
}

// from drops up to 1 MiB. able is false when this host cannot do it.
func (d *discarder) from(fd int) (n int, err error, able bool) {
	if d.unable {
		return 0, nil, false
	}
	if !d.opened {
		d.null, err = unix.Open("/dev/null", unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			d.unable = true
			return 0, nil, false
		}
		d.opened = true
	}
	for {
		m, err := unix.Splice(fd, nil, d.null, nil, 1<<20, unix.SPLICE_F_NONBLOCK)
		switch err {
		case unix.EINTR:
			continue
		case unix.EINVAL, unix.ENOSYS, unix.EPERM:
			d.unable = true
			return 0, nil, false
		}
		return int(max(m, 0)), err, true
	}
}

// close gives the descriptor back.
func (d *discarder) close() {
	if d.opened {
		unix.Close(d.null) // Nothing can be lost in it.
		d.opened = false
	}
	d.unable = true
}
