package host

import "golang.org/x/sys/unix"

// Landlock is the version of Landlock's ABI in this kernel (landlock(7)). 0:
// there is none, or something around capsule forbids it.
func Landlock() int {
	const version = 1 // LANDLOCK_CREATE_RULESET_VERSION
	n, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, version)
	if errno != 0 {
		return 0
	}
	return int(n)
}
