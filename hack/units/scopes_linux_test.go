//go:build systemd

package units

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
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
	call("spec", "--bundle", dir)
	text, err := os.ReadFile(dir + "/config.json")
	if err != nil {
		t.Fatal(err)
	}
	var s specs.Spec
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	memory, pids, quota, period := int64(64<<20), int64(32), int64(50000), uint64(100000)
	s.Process.Terminal, s.Process.Args = false, []string{"sh", "-c", "while :; do sleep 1; done"}
	s.Linux.Resources.Memory, s.Linux.Resources.Pids = &specs.LinuxMemory{Limit: &memory}, &specs.LinuxPids{Limit: &pids}
	s.Linux.Resources.CPU = &specs.LinuxCPU{Quota: &quota, Period: &period}
	s.Linux.CgroupsPath = "capsule-units.slice:oci:one"
	for _, host := range []string{"/usr", "/bin", "/lib", "/lib64"} {
		if st, err := os.Stat(host); err == nil && st.IsDir() {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: host, Type: "bind", Source: host, Options: []string{"rbind", "ro"}})
		}
	}
	save := func() {
		t.Helper()
		text, err := json.Marshal(&s)
		if err == nil {
			err = os.WriteFile(dir+"/config.json", text, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	save()
	if err := os.MkdirAll(dir+"/rootfs", 0o755); err != nil {
		t.Fatal(err)
	}
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
