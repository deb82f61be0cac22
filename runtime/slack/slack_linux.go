// Package slack gives a child process its timer slack: by how much the kernel may delay
// its timers to wake for several at once (PR_SET_TIMERSLACK). A process has that of the
// thread that makes it, as its value and as what it comes back to when it asks for its
// default. It only saves wake-ups: where the kernel refuses, nothing changes.
package slack

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// During calls f on a thread that has the given slack, in nanoseconds. f makes the child
// on that thread.
func During(ns int, f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err == nil && before != ns && unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(ns), 0, 0, 0) == nil {
		defer func() {
			_ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(before), 0, 0, 0) // it was taken before
		}()
	}
	f()
}
