package attack

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// ownMounts says that LeaveMounts has been here.
const ownMounts = "CAPSULE_ATTACK_OWN_MOUNTS"

// LeaveMounts has a test go on, as root, in a mount namespace of its own, which is the host
// of its sandboxes: a mount that appears there is theirs. In the one of all others the tests
// of other packages mount too. Call it first in TestMain: the program begins anew.
func LeaveMounts() error {
	if os.Geteuid() != 0 || os.Getenv(ownMounts) != "" {
		return nil
	}
	runtime.LockOSThread() // execve goes on with the namespace of the thread that calls it
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	return unix.Exec("/proc/self/exe", os.Args, append(os.Environ(), ownMounts+"=1"))
}
