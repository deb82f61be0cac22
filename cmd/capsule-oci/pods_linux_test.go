package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestNamespaces: by path, and a path of another kind is refused.
func TestNamespaces(t *testing.T) {
	b := newBox(t, "sh", "-c", "while :; do sleep 1; done")
	b.must("create", "first")
	pid := strconv.Itoa(b.state("first").Pid)
	set := func(kind specs.LinuxNamespaceType, path string) {
		for i := range b.config.Linux.Namespaces {
			if n := &b.config.Linux.Namespaces[i]; n.Type == kind {
				n.Path = path
			}
		}
	}
	set(specs.NetworkNamespace, "/proc/"+pid+"/ns/ipc")
	b.refused([]string{"linux.namespaces", "another kind"}, "create", "second")
	set(specs.NetworkNamespace, "/proc/"+pid+"/ns/net")
	set(specs.IPCNamespace, "/proc/"+pid+"/ns/ipc")
	set(specs.PIDNamespace, "/proc/"+pid+"/ns/pid")
	set(specs.UTSNamespace, "/proc/"+pid+"/ns/uts")
	b.must("create", "second")
	other := strconv.Itoa(b.state("second").Pid)
	sharing(t, pid, other, map[string]bool{"net": true, "ipc": true, "pid": true, "uts": true, "mnt": false, "cgroup": false})
	// The first is process 1 of both and ends when all others are reaped: it is our
	// part to reap the second.
	second := b.state("second").Pid
	b.must("delete", "--force", "second")
	if _, err := unix.Wait4(second, nil, 0, nil); err != nil {
		t.Error(err)
	}
}

// mapped gives the bundle a new user namespace.
func (b *box) mapped() {
	b.t.Helper()
	b.config.Linux.Namespaces = append(b.config.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 300000, Size: 65536}}
	b.config.Linux.UIDMappings, b.config.Linux.GIDMappings = maps, maps
	for _, p := range []string{".", "rootfs", "out"} {
		if err := os.Chown(b.path(p), 300000, 300000); err != nil {
			b.t.Fatal(err)
		}
	}
	// Search permission on the way is the host's business.
	for dir := b.dir; dir != "/"; dir = filepath.Dir(dir) {
		if st, err := os.Stat(dir); err == nil && st.Mode()&0o001 == 0 {
			if err := os.Chmod(dir, st.Mode()|0o011); err != nil {
				b.t.Fatal(err)
			}
		}
	}
}

// TestPodWithUserNamespace: a container of a pod has the user, network, IPC and UTS namespace
// of the pod, and mounts and processes of its own.
func TestPodWithUserNamespace(t *testing.T) {
	b := newBox(t, "sh", "-c", forever)
	b.mapped()
	b.must("create", "pod")
	pid := strconv.Itoa(b.state("pod").Pid)
	for i := range b.config.Linux.Namespaces {
		n := &b.config.Linux.Namespaces[i]
		if name, ok := map[specs.LinuxNamespaceType]string{specs.UserNamespace: "user", specs.NetworkNamespace: "net", specs.IPCNamespace: "ipc", specs.UTSNamespace: "uts"}[n.Type]; ok {
			n.Path = "/proc/" + pid + "/ns/" + name
		}
	}
	b.config.Hostname = ""
	b.config.Linux.Namespaces = append(b.config.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
	b.config.Process.Args = []string{"sh", "-c", `echo $$ $(cat /proc/self/uid_map) $(ls -d /proc/[0-9]*) >/out/seen.new; mv /out/seen.new /out/seen; ` + forever}
	b.must("run", "--detach", "member")
	seen := strings.Fields(b.written("seen"))
	if len(seen) < 5 || seen[0] != "1" || seen[2] != "300000" || seen[4] != "/proc/1" {
		t.Errorf("it sees %q", seen)
	}
	other := strconv.Itoa(b.state("member").Pid)
	sharing(t, pid, other, map[string]bool{"user": true, "net": true, "ipc": true, "uts": true, "pid": false, "mnt": false, "cgroup": false, "time": false})
	out := b.must("exec", "member", "sh", "-c", "readlink /proc/self/ns/pid /proc/1/ns/pid; cat /proc/self/gid_map")
	if f := strings.Fields(out); len(f) != 5 || f[0] != f[1] || f[3] != "300000" {
		t.Errorf("a later process sees %q", out)
	}
	b.config.Process.Args = []string{"no-such-command"}
	b.refused([]string{"E3003"}, "create", "none")
	b.config.Process.Args = []string{"true"}
	b.config.Linux.Sysctl = map[string]string{"kernel.shmmax": "no number"}
	b.refused([]string{"linux.sysctl"}, "create", "none")
	b.must("delete", "--force", "member")
	// One with the processes of the pod too.
	b.config.Linux.Sysctl = nil
	for i := range b.config.Linux.Namespaces {
		if n := &b.config.Linux.Namespaces[i]; n.Type == specs.PIDNamespace {
			n.Path = "/proc/" + pid + "/ns/pid"
		}
	}
	b.config.Process.Args = []string{"sh", "-c", "readlink /proc/self/ns/user; cat /proc/self/uid_map; test $$ != 1 -a -d /proc/1 && echo both"}
	user, err := os.Readlink("/proc/" + pid + "/ns/user")
	if out := b.must("run", "with"); err != nil || !strings.HasPrefix(out, user) || !strings.Contains(out, " 300000 ") || !strings.HasSuffix(out, "both\n") {
		t.Errorf("%q %v", out, err)
	}
	if ids := b.must("list", "-q"); strings.TrimSpace(ids) != "pod" {
		t.Errorf("left: %q", ids)
	}
}

// TestTimeOffsets: the clocks of a container are set before its first process is there, with a
// user namespace and without.
func TestTimeOffsets(t *testing.T) {
	for _, mapped := range []bool{false, true} {
		b := newBox(t, "sh", "-c", "cat /proc/self/timens_offsets /proc/uptime >/out/seen")
		if mapped {
			b.mapped()
		}
		b.config.Linux.Namespaces = append(b.config.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
		b.config.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 10000000, Nanosecs: 5}, "monotonic": {Secs: 7}}
		b.must("run", "clock")
		f := strings.Fields(b.out("seen"))
		if len(f) != 8 || f[1] != "7" || f[4] != "10000000" || f[5] != "5" || len(f[6]) < len("10000000.0") {
			t.Errorf("mapped %v: %q", mapped, f)
		}
		b.config.Linux.TimeOffsets["realtime"] = specs.LinuxTimeOffset{Secs: 1}
		b.refused([]string{"linux.timeOffsets.realtime"}, "create", "clock")
	}
}

// TestUserNamespace: ids are mapped, and a later process gets the same walls.
func TestUserNamespace(t *testing.T) {
	b := newBox(t, "sh", "-c", "while :; do sleep 1; done")
	b.mapped()
	b.must("create", "user")
	b.must("start", "user")
	first := "/proc/" + strconv.Itoa(b.state("user").Pid)
	out := b.must("exec", "user", "sh", "-c", "cat /proc/self/uid_map; readlink /proc/self/ns/user; readlink /proc/self/ns/mnt; grep -e NoNew -e CapBnd /proc/self/status")
	for _, name := range []string{"user", "mnt"} {
		if ns, err := os.Readlink(first + "/ns/" + name); err != nil || !strings.Contains(out, ns) {
			t.Errorf("%s is not in %s", ns, out)
		}
	}
	for _, want := range []string{"300000", "NoNewPrivs:\t1", "CapBnd:\t0000000000000000"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in %q", want, out)
		}
	}
}

// TestHostNamespaceByPath: a namespace by path may be the host's own, where nothing is set.
func TestHostNamespaceByPath(t *testing.T) {
	for _, c := range []struct {
		kind        specs.LinuxNamespaceType
		name, field string
		change      func(*specs.Spec)
	}{
		{specs.NetworkNamespace, "net", "linux.sysctl.net.ipv4.ip_forward", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "0"} }},
		{specs.IPCNamespace, "ipc", "linux.sysctl.kernel.msgmax", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.msgmax": "8192"} }},
		{specs.UTSNamespace, "uts", "hostname", func(s *specs.Spec) { s.Hostname, _ = os.Hostname() }},
	} {
		b := newBox(t, "true")
		b.config.Hostname = ""
		for i := range b.config.Linux.Namespaces {
			if n := &b.config.Linux.Namespaces[i]; n.Type == c.kind {
				n.Path = "/proc/" + strconv.Itoa(os.Getpid()) + "/ns/" + c.name
			}
		}
		b.must("run", "plain")
		c.change(b.config)
		b.refused([]string{"E2009", c.field}, "create", "refused")
	}
}

// sharing compares namespaces of two processes.
func sharing(t *testing.T, pid, other string, want map[string]bool) {
	t.Helper()
	for name, same := range want {
		one, err := os.Readlink("/proc/" + pid + "/ns/" + name)
		if err != nil {
			t.Fatal(err)
		}
		two, err := os.Readlink("/proc/" + other + "/ns/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if (one == two) != same {
			t.Errorf("%s: %s and %s", name, one, two)
		}
	}
}

// TestHostMountsByPath: the root of the host is not changed for that of a container. The caller is
// in mounts of its own, lest they be the host's when the wall is gone.
func TestHostMountsByPath(t *testing.T) {
	b := newBox(t, "true")
	field := ""
	for i := range b.config.Linux.Namespaces {
		if n := &b.config.Linux.Namespaces[i]; n.Type == specs.MountNamespace {
			n.Path, field = "/proc/self/ns/mnt", "linux.namespaces["+strconv.Itoa(i)+"].path"
		}
	}
	b.save()
	cmd := b.command("create", "--bundle", b.dir, "host")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "E2009") || !strings.Contains(string(out), field) {
		t.Errorf("%v: %s", err, out)
	}
}
