package main

import (
	"os"
	"os/exec"
	"slices"
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
	// Controllers of the host's v2 tree that are passed on for it are taken back: crun and runc
	// have no use for a host with both.
	const script = `umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; cd /sys/fs/cgroup; before=" $(cat cgroup.subtree_control) "
		status=0; (cd "$OLDPWD"; exec "$0" -test.v -test.run "$1") || status=$?
		for c in $(cat cgroup.subtree_control); do case "$before" in *" $c "*) ;; *) echo "-$c" >cgroup.subtree_control;; esac; done; exit $status`
	cmd := exec.Command("sh", "-ec", script,
		self, "^(TestLifecycle|TestCreateIsKilled|TestDevices|TestGroupInUse|TestNamespaces|TestUserNamespace)$")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "--- PASS") != 6 {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestExecBesideGroups: a container that has passed controllers on to groups of its own has
// no process beside them, and a later one goes where its first one is.
func TestExecBesideGroups(t *testing.T) {
	needRoot(t)
	if list, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers"); err != nil || !slices.Contains(strings.Fields(string(list)), "pids") {
		t.Skip("the control groups of this host are of v1; the machines of hack/vmtest.sh have v2")
	}
	b := newBox(t, "sh", "-ec", `cd /sys/fs/cgroup; mkdir mine; echo 1 >mine/cgroup.procs; echo +pids >cgroup.subtree_control; echo up >/out/up; `+forever)
	for i := range b.config.Mounts {
		if m := &b.config.Mounts[i]; m.Type == "cgroup" || m.Type == "cgroup2" {
			m.Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return o == "ro" })
		}
	}
	b.must("run", "--detach", "groups")
	b.written("up")
	if out := b.must("exec", "groups", "cat", "/proc/self/cgroup"); out != "0::/mine\n" {
		t.Errorf("it is in %q", out)
	}
	b.must("delete", "--force", "groups")
	if left := groups("groups"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
