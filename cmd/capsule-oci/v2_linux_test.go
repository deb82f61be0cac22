package main

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestOnUnifiedTree repeats what depends on control groups where only v2 is to be seen: the
// tree of a host that has v1 too has no controllers, but groups, the freezer, killing and
// the eBPF filter of devices all the same.
func TestOnUnifiedTree(t *testing.T) {
	needRoot(t)
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return // the tests themselves say it
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-ec", `umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; exec "$0" -test.v -test.run "$1"`,
		self, "^(TestLifecycle|TestCreateIsKilled|TestDevices|TestGroupInUse|TestNamespaces|TestUserNamespace)$")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "--- PASS") != 6 {
		t.Errorf("%v\n%s", err, out)
	}
}
