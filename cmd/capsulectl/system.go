//go:build unix

package main

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Write writes all of p. It waits when the file is non-blocking, as it can be
// when it is shared with the caller.
func (d descriptor) Write(p []byte) (int, error) {
	for n := 0; ; {
		m, err := unix.Write(int(d), p[n:])
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			// An error of poll shows in the next write.
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(d), Events: unix.POLLOUT}}, -1)
		case err != nil:
			return n, err
		default:
			if n += m; n >= len(p) {
				return n, nil
			}
		}
	}
}

// window is the size of the terminal behind a stream; ok: it is one. Only a
// terminal has a window size (TIOCGWINSZ).
func window(stream any) (columns, rows int, ok bool) {
	fd := -1
	switch f := stream.(type) {
	case descriptor:
		fd = int(f)
	case *os.File:
		fd = int(f.Fd())
	}
	size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0, false
	}
	return int(size.Col), int(size.Row), true
}

// signalText is SIGTERM for 15, empty for a number without a name.
func signalText(s syscall.Signal) string { return unix.SignalName(s) }

// signalOf is 15 for SIGTERM, 0 for what is no signal.
func signalOf(name string) syscall.Signal { return unix.SignalNum(name) }

// kernelRelease is that of uname(2), empty when it does not tell.
func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// attributes start a process as the patient, in a group of its own: Ctrl-C must
// not keep it from tidying up.
func (p patient) attributes() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setpgid: true}
	if p.other {
		a.Credential = &syscall.Credential{Uid: p.uid, Gid: p.gid}
	}
	return a
}
