package server_test

import (
	"net"
	"runtime"

	"golang.org/x/sys/unix"
)

// listenOnThread listens as another user. Its thread ends with its goroutine,
// because it is not unlocked: its identity is not to spread.
func listenOnThread(path string, uid int) (net.Listener, error) {
	runtime.LockOSThread()
	// The raw call changes this thread alone.
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
		return nil, errno
	}
	return net.Listen("unix", path)
}
