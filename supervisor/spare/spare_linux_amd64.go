package spare

import (
	"sync/atomic"
	"syscall"
)

// used is set by whoever takes the one shim that there may be.
var used atomic.Bool

// Take gives away the shim that waits, if there is one and path is its program:
// our end of its connection, a child process and whether there is one. The
// caller closes the connection and waits for the child.
func Take(path string) (connection, pid int, ok bool) {
	if waiting.pid == 0 || string(waiting.path[:waiting.length]) != path || used.Swap(true) {
		return -1, 0, false
	}
	return int(waiting.connection), int(waiting.pid), true
}

// Discard ends the shim that nobody took and waits until it is gone.
func Discard() {
	if waiting.pid == 0 || used.Swap(true) {
		return
	}
	_ = syscall.Close(int(waiting.connection))
	_ = syscall.Kill(int(waiting.pid), syscall.SIGKILL) // a child of ours that is not reaped
	for {
		if _, err := syscall.Wait4(int(waiting.pid), nil, 0, nil); err != syscall.EINTR {
			return
		}
	}
}
