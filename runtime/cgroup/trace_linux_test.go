package cgroup

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestLeaveLeaf puts a process back that Prepare moved out of the way, and
// leaves everything as it is while an execution has its group there.
func TestLeaveLeaf(t *testing.T) {
	h := needHost(t)
	if h.unified() == nil {
		t.Skip("no v2 tree is mounted")
	}
	own := newGroup(t, h, nil).v2().path
	tr := &tree{version: 2, mount: h.unified().mount, own: own, parent: own}
	if err := os.Mkdir(own+"/"+leafName, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := start(t, &Group{dirFD: -1}, "stubborn")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it is ours and not reaped yet
		_ = cmd.Wait()         // killed, as wanted
	})
	if err := write(own+"/"+leafName+"/cgroup.procs", strconv.Itoa(cmd.Process.Pid)); err != nil {
		t.Fatal(err)
	}

	execution := own + "/" + groupPrefix + "somebody"
	if err := os.Mkdir(execution, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := tr.leaveLeaf(""); err != nil {
		t.Fatal(err)
	}
	if !exists(own + "/" + leafName) {
		t.Error("the leaf is gone although an execution is there")
	}
	if err := os.Remove(execution); err != nil {
		t.Fatal(err)
	}
	if err := tr.leaveLeaf(""); err != nil {
		t.Fatal(err)
	}
	if exists(own + "/" + leafName) {
		t.Error("the leaf is left")
	}
	var b buffer
	if content, err := b.read(own + "/cgroup.procs"); err != nil || strings.TrimSpace(content) != strconv.Itoa(cmd.Process.Pid) {
		t.Errorf("the process is not back: %q, %v", content, err)
	}
}

// TestFence: nobody makes a group while controllers are taken away.
func TestFence(t *testing.T) {
	h := needHost(t)
	if h.unified() == nil {
		t.Skip("no v2 tree is mounted")
	}
	own := newGroup(t, h, nil).v2().path
	tr := &tree{version: 2, mount: h.unified().mount, own: own, parent: own}
	lift, err := tr.fence()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(own+"/x", 0o755); err == nil {
		t.Error("a group could be made behind the fence")
		_ = os.Remove(own + "/x") // the test has failed
	}
	lift()
	if err := os.Mkdir(own+"/x", 0o755); err != nil {
		t.Errorf("the fence is left: %v", err)
	} else if err := os.Remove(own + "/x"); err != nil {
		t.Error(err)
	}
}
