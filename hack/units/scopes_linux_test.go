//go:build systemd

package units

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/runtime/wire"
)

// TestScopes: capsule-oci makes a container's control group as a scope of systemd, with the
// limits that systemd knows too, and nothing is left of it.
func TestScopes(t *testing.T) {
	bin, err := filepath.Abs(os.Getenv("CAPSULE_BIN"))
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t, ""}
	dir := t.TempDir()
	call := func(args ...string) string {
		t.Helper()
		return h.output(filepath.Join(bin, "capsule-oci"), append([]string{"--root", dir + "/state", "--systemd-cgroup"}, args...)...)
	}
	s := bundleIn(t, bin, dir, "capsule-units.slice:oci:one")
	save := func() { saveIn(t, dir, s) }
	save()
	t.Cleanup(func() {
		for _, id := range []string{"one", "two"} {
			_ = exec.Command(filepath.Join(bin, "capsule-oci"), "--root", dir+"/state", "delete", "--force", id).Run() // it may be gone
		}
	})
	unit := "oci-one.scope"
	show := func(property string) string { return h.systemctl("show", "--value", "-p", property, unit) }
	// To files: the container keeps its streams.
	run := exec.Command(filepath.Join(bin, "capsule-oci"), "--root", dir+"/state", "--systemd-cgroup", "run", "--detach", "--bundle", dir, "one")
	run.Stderr, err = os.Create(dir + "/said")
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Run(); err != nil {
		said, _ := os.ReadFile(dir + "/said")
		t.Fatalf("%v: %s", err, said)
	}
	for property, want := range map[string]string{"ActiveState": "active", "Slice": "capsule-units.slice", "MemoryMax": "67108864", "TasksMax": "32",
		"CPUQuotaPerSecUSec": "500ms", "Delegate": "yes"} {
		if got := show(property); got != want {
			t.Errorf("%s is %q, want %q", property, got, want)
		}
	}
	group := "/sys/fs/cgroup" + show("ControlGroup")
	read := func(file string) string {
		t.Helper()
		text, err := os.ReadFile(group + "/" + file)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(text))
	}
	if out := h.output(filepath.Join(bin, "capsule-oci"), "--root", dir+"/state", "exec", "one", "cat", "/proc/self/cgroup"); !strings.HasSuffix(out, "0::/") {
		t.Errorf("a later process is in %q", out)
	}
	call("update", "--memory", "134217728", "one")
	h.systemctl("daemon-reload") // writes all that systemd knows
	if got := read("memory.max") + " " + read("pids.max") + " " + read("cpu.max"); got != "134217728 32 50000 100000" {
		t.Errorf("after a reload: %s", got)
	}
	if n := len(strings.Fields(read("cgroup.procs"))); n == 0 || n > 2 {
		t.Errorf("%d processes are in the group", n)
	}
	// Another container cannot take the name of one that runs.
	if out, err := exec.Command(filepath.Join(bin, "capsule-oci"), "--root", dir+"/state", "--systemd-cgroup", "create", "--bundle", dir, "two").CombinedOutput(); err == nil || !strings.Contains(string(out), "linux.cgroupsPath") {
		t.Errorf("a second one: %v: %s", err, out)
	}
	if got := show("ActiveState"); got != "active" {
		t.Errorf("the first is %s", got)
	}
	call("delete", "--force", "one")
	if got := show("LoadState"); got != "not-found" {
		t.Errorf("after its end the unit is %s", got)
	}
	if _, err := os.Stat(group); err == nil {
		t.Error("the control group is left")
	}
	// One that ends by itself, twice with one name.
	s.Process.Args = []string{"true"}
	save()
	for range 2 {
		call("run", "--bundle", dir, "one")
	}
	if got := show("LoadState"); got != "not-found" {
		t.Errorf("after its own end the unit is %s", got)
	}
	s.Linux.CgroupsPath = "/not/a/unit"
	save()
	if out, err := exec.Command(filepath.Join(bin, "capsule-oci"), "--root", dir+"/state", "--systemd-cgroup", "create", "--bundle", dir, "two").CombinedOutput(); err == nil || !strings.Contains(string(out), "E2009") {
		t.Errorf("a path: %v: %s", err, out)
	}
}

// bundleIn makes a bundle of a container that does not end, with limits of three kinds.
func bundleIn(t *testing.T, bin, dir, cgroupsPath string) *specs.Spec {
	t.Helper()
	if out, err := exec.Command(filepath.Join(bin, "capsule-oci"), "spec", "--bundle", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text, err := os.ReadFile(dir + "/config.json")
	if err != nil {
		t.Fatal(err)
	}
	s := new(specs.Spec)
	if err := json.Unmarshal(text, s); err != nil {
		t.Fatal(err)
	}
	memory, pids, quota, period := int64(64<<20), int64(32), int64(50000), uint64(100000)
	s.Process.Terminal, s.Process.Args = false, []string{"sh", "-c", "while :; do sleep 1; done"}
	s.Linux.Resources.Memory, s.Linux.Resources.Pids = &specs.LinuxMemory{Limit: &memory}, &specs.LinuxPids{Limit: &pids}
	s.Linux.Resources.CPU = &specs.LinuxCPU{Quota: &quota, Period: &period}
	s.Linux.CgroupsPath = cgroupsPath
	for _, host := range []string{"/usr", "/bin", "/lib", "/lib64"} {
		if st, err := os.Stat(host); err == nil && st.IsDir() {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: host, Type: "bind", Source: host, Options: []string{"rbind", "ro"}})
		}
	}
	if err := os.MkdirAll(dir+"/rootfs", 0o755); err != nil {
		t.Fatal(err)
	}
	saveIn(t, dir, s)
	return s
}

func saveIn(t *testing.T, dir string, s *specs.Spec) {
	t.Helper()
	text, err := json.Marshal(s)
	if err == nil {
		err = os.WriteFile(dir+"/config.json", text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// pod is a shim of containerd with a bundle.
type pod struct {
	t            *testing.T
	bin, dir, id string
	server       *wire.Client
	spec         *specs.Spec // of the bundle
}

// newPod starts the shim of a bundle whose group is cri-containerd-ID.scope.
func newPod(t *testing.T, bin, id string) *pod {
	t.Helper()
	p := &pod{t: t, bin: bin, dir: t.TempDir(), id: id}
	p.spec = bundleIn(t, os.Getenv("CAPSULE_BIN"), p.dir, "capsule-units.slice:cri-containerd:"+id)
	p.server = &wire.Client{Path: strings.TrimPrefix(p.program("start"), "unix://")}
	t.Cleanup(p.server.Close)
	return p
}

// program calls the shim as containerd does.
func (p *pod) program(command string) string {
	p.t.Helper()
	cmd := exec.Command(filepath.Join(p.bin, "containerd-shim-capsule-v2"), "-namespace", "units", "-address", p.dir+"/containerd.sock", "-id", p.id, command)
	cmd.Dir, cmd.Env = p.dir, append(os.Environ(), "TTRPC_ADDRESS="+p.dir+"/events")
	out, err := cmd.Output()
	if err != nil {
		p.t.Fatalf("%s: %v", command, err)
	}
	return string(out)
}

func (p *pod) call(method string, request wire.Message) error {
	return p.server.Call("containerd.task.v3.Task", method, request, patience)
}

// must makes a call about the container, with what more it says.
func (p *pod) must(method string, more wire.Message) {
	p.t.Helper()
	if err := p.call(method, append(wire.Message(nil).PutString(1, p.id), more...)); err != nil {
		p.t.Fatalf("%s: %v", method, err)
	}
}

// creation asks for a container with the systemd driver.
func (p *pod) creation() wire.Message {
	return wire.Message(nil).PutString(2, p.dir).PutAny(10, "containerd.runc.v1.Options", wire.Message(nil).PutBool(9, true))
}

func (p *pod) show(property string) string {
	return (&host{p.t, ""}).systemctl("show", "--value", "-p", property, "cri-containerd-"+p.id+".scope")
}

// TestScopesOfContainerd: with the option SystemdCgroup the shim of containerd has the
// groups made as scopes, by the capsule-oci beside it, changes their limits, and takes them
// away: also what a shim has left that was killed.
func TestScopesOfContainerd(t *testing.T) {
	bin, err := filepath.Abs(os.Getenv("CAPSULE_BIN"))
	if err != nil {
		t.Fatal(err)
	}
	one := newPod(t, bin, "one")
	one.must("Create", one.creation())
	one.must("Start", nil)
	for property, want := range map[string]string{"ActiveState": "active", "Slice": "capsule-units.slice", "MemoryMax": "67108864", "TasksMax": "32"} {
		if got := one.show(property); got != want {
			t.Errorf("%s is %q, want %q", property, got, want)
		}
	}
	one.must("Update", wire.Message(nil).PutAny(2, "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources", wire.Message(`{"memory":{"limit":134217728}}`)))
	(&host{t, ""}).systemctl("daemon-reload") // writes all that systemd knows
	if text, err := os.ReadFile("/sys/fs/cgroup" + one.show("ControlGroup") + "/memory.max"); strings.TrimSpace(string(text)) != "134217728" {
		t.Errorf("after a reload: %s, %v", text, err)
	}
	one.must("Stats", nil)
	one.must("Kill", wire.Message(nil).PutUint(3, 9).PutBool(4, true))
	one.must("Wait", nil)
	one.must("Delete", nil)
	one.must("Shutdown", nil)
	if got := one.show("LoadState"); got != "not-found" {
		t.Errorf("after its end the unit is %s", got)
	}
	two := newPod(t, bin, "two")
	two.must("Create", two.creation())
	two.must("Start", nil)
	if err := exec.Command("pkill", "-KILL", "-f", "containerd-shim-capsule-v2 .*-id two ").Run(); err != nil {
		t.Fatal(err)
	}
	two.program("delete")
	if got := two.show("LoadState"); got != "not-found" {
		t.Errorf("after the end of its shim the unit is %s", got)
	}
}

// TestScopesWithoutHelper: a shim that stands alone says what it lacks.
func TestScopesWithoutHelper(t *testing.T) {
	alone := t.TempDir()
	for _, name := range []string{"containerd-shim-capsule-v2", "capsule-seccomp"} {
		(&host{t, ""}).output("cp", filepath.Join(os.Getenv("CAPSULE_BIN"), name), alone)
	}
	p := newPod(t, alone, "three")
	err := p.call("Create", append(wire.Message(nil).PutString(1, p.id), p.creation()...))
	if err == nil || !strings.Contains(err.Error(), "options.SystemdCgroup") || !strings.Contains(err.Error(), "Install capsule-oci") {
		t.Errorf("%v", err)
	}
	p.must("Shutdown", nil)
}

// events takes containerd's place, and gives the topics that the shim publishes.
func (p *pod) events() <-chan string {
	p.t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: p.dir + "/events"})
	if err != nil {
		p.t.Fatal(err)
	}
	file, err := l.File()
	if err != nil {
		p.t.Fatal(err)
	}
	topics := make(chan string, 100)
	server := wire.Server{Call: func(_ context.Context, _, method string, request wire.Message) (wire.Message, error) {
		topics <- request.Message(1).String(3) // ForwardRequest of api/services/ttrpc/events/v1, whose envelope has the topic
		return nil, nil
	}}
	served := make(chan error, 1)
	go func() { served <- server.Serve(file) }()
	p.t.Cleanup(func() {
		_ = file.Close()
		_ = l.Close()
		<-served
	})
	return topics
}

// TestOOMEvents: with control groups of version 2, too, a kill for want of memory is told
// while the container goes on.
func TestOOMEvents(t *testing.T) {
	bin, err := filepath.Abs(os.Getenv("CAPSULE_BIN"))
	if err != nil {
		t.Fatal(err)
	}
	p := newPod(t, bin, "four")
	topics := p.events()
	p.spec.Process.Args = []string{"sh", "-c", "tail /dev/zero; sleep 1000"}
	p.spec.Linux.Resources.Memory.Swap = p.spec.Linux.Resources.Memory.Limit
	saveIn(t, p.dir, p.spec)
	p.must("Create", p.creation())
	p.must("Start", nil)
	late := time.After(patience)
	for told := ""; told != "/tasks/oom"; {
		select {
		case told = <-topics:
		case <-late:
			t.Fatal("nobody was told")
		}
		if told == "/tasks/exit" {
			t.Fatal("it has ended before anybody was told")
		}
	}
	if got := p.show("ActiveState"); got != "active" {
		t.Errorf("after the kill the container is %s", got)
	}
	p.must("Kill", wire.Message(nil).PutUint(3, 9).PutBool(4, true))
	p.must("Wait", nil)
	p.must("Delete", nil)
	p.must("Shutdown", nil)
}
