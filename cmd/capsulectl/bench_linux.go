package main

import (
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec/fault"
)

// becomeSubreaper makes this process the parent of what its children leave.
func becomeSubreaper() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fault.Wrap(fault.SystemCall, "become subreaper", err)
	}
	return nil
}
