package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// nested makes calls of the program in a user namespace, as root there, which is what a podman
// of another user than root does.
type nested struct {
	*box
	self string
	deny bool // setgroups
}

func newNested(t *testing.T, args ...string) *nested {
	t.Helper()
	b := newBox(t, args...)
	b.mapped()
	b.config.Linux.UIDMappings, b.config.Linux.GIDMappings = nil, nil
	b.config.Linux.Namespaces = b.config.Linux.Namespaces[:len(b.config.Linux.Namespaces)-1]
	n := &nested{box: b, self: b.path("capsule-oci")}
	from, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(n.self, text, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// call runs the program there and gives what it and the container wrote.
func (n *nested) call(args ...string) (string, error) {
	n.t.Helper()
	if args[0] == "create" || args[0] == "run" {
		args = append([]string{args[0], "--bundle", n.dir}, args[1:]...)
	}
	return n.inside(n.self, append([]string{"--root", n.path("state")}, args...)...)
}

// inside runs any program there.
func (n *nested) inside(name string, args ...string) (string, error) {
	n.t.Helper()
	n.save()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), actAs+"=1")
	said, err := os.CreateTemp(n.dir, "said") // a container keeps its streams
	if err != nil {
		n.t.Fatal(err)
	}
	defer said.Close()
	cmd.Stdout, cmd.Stderr = said, said
	one := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 300000, Size: 65536}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, UidMappings: one, GidMappings: one,
		GidMappingsEnableSetgroups: !n.deny, Credential: &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: n.deny}}
	err = cmd.Run()
	text, bad := os.ReadFile(said.Name())
	if bad != nil {
		n.t.Fatal(bad)
	}
	return string(text), err
}

// TestInUserNamespace: root of a user namespace has containers too: with the devices of the host and
// with the groups that it may make, here none. Limits that cannot be set are refused.
func TestInUserNamespace(t *testing.T) {
	for _, deny := range []bool{false, true} {
		n := newNested(t, "sh", "-c", "id -u; cat /proc/self/uid_map; head -c 1 /dev/zero | wc -c; echo >/dev/null; exit 3")
		n.deny = deny
		out, err := n.call("run", "plain")
		if f := strings.Fields(out); err == nil || err.Error() != "exit status 3" || len(f) != 5 || f[0] != "0" || f[2] != "300000" || f[4] != "1" {
			t.Fatalf("deny %v: %v: %q", deny, err, out)
		}
		// A later process, from the same namespace.
		n.config.Process.Args = []string{"sh", "-c", forever}
		out, err = n.inside("sh", "-ec", `oci="$0 --root $1/state"; $oci run --bundle $1 --detach later; $oci exec later sh -c 'echo $(id -u) $(cat /proc/1/comm)'; $oci kill later KILL; $oci delete --force later`, n.self, n.dir)
		if err != nil || out != "0 sh\n" {
			t.Errorf("deny %v: a later process: %v: %q", deny, err, out)
		}
		// Without a control group all of its processes are those of its pid namespace, which end with
		// the first and cannot be listed.
		out, err = n.inside("sh", "-c", `oci="$0 --root $1/state"; $oci run --bundle $1 --detach all; $oci kill --all all TERM; $oci kill --all all KILL`, n.self, n.dir)
		if err != nil || !strings.Contains(out, "E2002") || strings.Count(out, "capsule-oci:") != 1 {
			t.Errorf("deny %v: kill --all: %v: %q", deny, err, out)
		}
		n.stops("all")
		if out, err := n.call("delete", "all"); err != nil {
			t.Errorf("deny %v: delete: %v: %q", deny, err, out)
		}
		n.config.Process.Args = []string{"true"}
		n.config.Process.User.AdditionalGids = []uint32{7}
		if out, err := n.call("run", "groups"); deny != (err != nil && strings.Contains(out, "additionalGids")) {
			t.Errorf("deny %v: additional groups: %v: %q", deny, err, out)
		}
		n.config.Process.User.AdditionalGids = nil
		n.config.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/full", Type: "c", Major: 1, Minor: 5}}
		if out, err := n.call("create", "device"); err == nil || !strings.Contains(out, "linux.devices[0]") {
			t.Errorf("another device: %v: %q", err, out)
		}
		n.config.Linux.Devices = nil
		memory := int64(64 << 20)
		n.config.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &memory}}
		if out, err := n.call("create", "limit"); err == nil || !strings.Contains(out, "linux.resources.memory.limit") {
			t.Errorf("a limit: %v: %q", err, out)
		}
		left, err := filepath.Glob(n.path("state") + "/[a-z]*")
		if err != nil || len(left) > 0 {
			t.Errorf("left: %v %v", left, err)
		}
	}
}

// TestGroupsOfTheCaller: where a container has no control group of its own, the mount of type
// cgroup shows the caller's, in which its processes are.
func TestGroupsOfTheCaller(t *testing.T) {
	n := newNested(t, "sh", "-c", `for d in /sys/fs/cgroup /sys/fs/cgroup/*; do [ ! -e $d/cgroup.procs ] || grep -qx $$ $d/cgroup.procs || exit 1; [ ! -e $d/cgroup.procs ] || echo $d; done | grep .`)
	n.config.Linux.Namespaces = slices.DeleteFunc(n.config.Linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == specs.CgroupNamespace })
	if out, err := n.call("run", "groups"); err != nil {
		t.Errorf("%v: %q", err, out)
	}
}
