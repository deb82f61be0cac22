package main

import (
	"bytes"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// unified is the v2 tree of a host that has v1 as well.
const unified = "/sys/fs/cgroup/unified"

// start starts a runtime. crun refuses a hybrid host whose v2 tree has controllers, so
// there it gets a mount namespace that does not show that tree. The thread that has
// made it serves nothing else again.
func start(cmd *exec.Cmd, hides bool) error {
	controllers, err := os.ReadFile(unified + "/cgroup.controllers")
	if !hides || err != nil || len(bytes.TrimSpace(controllers)) == 0 {
		return cmd.Start()
	}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this function
		err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = unix.Unmount(unified, 0)
		}
		if err == nil {
			err = cmd.Start()
		}
		started <- err
	}()
	return <-started
}
