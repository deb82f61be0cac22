//go:build !linux

package bench

import (
	"runtime"
	"time"

	"github.com/capsule-run/capsule/spec/fault"
)

// children are not known: nothing here finds what a client leaves behind.
func children() map[int]bool { return nil }

// reap has nothing to wait for.
func reap(map[int]bool) {}

// Spent is E2008 on this system.
func Spent(int) (time.Duration, error) {
	return 0, fault.New(fault.Unsupported, "measure processor time", "not supported on "+runtime.GOOS)
}
