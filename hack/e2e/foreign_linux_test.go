package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// hostCommand runs a program of the host's and gives what it prints.
func (c *capsule) hostCommand(env []string, name string, args ...string) string {
	c.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		c.Fatalf("%s %q: %v: %s", name, args, err, &errs)
	}
	return string(bytes.TrimSpace(out))
}

// smallRoot puts a root of one program, busybox, into dir.
func (c *capsule) smallRoot(dir string) {
	c.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		lack(c.T, false, "busybox is not installed (hack/deps.sh peers)")
	}
	for _, d := range []string{"bin", "etc", "proc", "dev", "sys", "tmp", "run"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			c.Fatal(err)
		}
	}
	c.hostCommand(nil, "cp", path, filepath.Join(dir, "bin/busybox"))
	if err := os.Symlink("busybox", filepath.Join(dir, "bin/sh")); err != nil {
		c.Fatal(err)
	}
	// Another runtime leaves files of the host's root in it; capsule maps ids.
	if err := os.Chmod(dir, 0o755); err != nil {
		c.Fatal(err)
	}
}

// foreignScript is what the bundles below run.
const foreignScript = `busybox id -u; pwd; echo "$A"; busybox touch /tmp/file && busybox cat /proc/self/status | busybox grep -c NoNewPrivs; exit 3`

// foreignRuns wants a bundle that another program has made to run here, and to be
// seen alike by other runtimes.
func (c *capsule) foreignRuns(dir, cwd string) {
	c.Helper()
	o := c.bundleRun(dir)
	o.is(c.T, exited(3))
	if want := "0\n" + cwd + "\nb\n1\n"; o.text() != want {
		c.Errorf("stdout %q, want %q", o.text(), want)
	}
	for _, runtime := range []string{"runc", "crun"} {
		if _, err := exec.LookPath(runtime); err != nil || slow() > 1 {
			continue // TestBundlesUnderOtherRuntimes tells of it
		}
		if o := c.finish(c.program("bundle", "compare", dir, "--with", runtime)); o.code != 0 {
			c.Errorf("%s: exit %d\n%s%s", runtime, o.code, o.out, o.stderr)
		}
	}
}

// TestBundleOfUmoci runs what umoci unpacks of an image. It asks for a terminal, without
// which runc and crun run nothing: that is changed for the comparison with them.
func TestBundleOfUmoci(t *testing.T) {
	c := begin(t)
	needRuntime(t, "umoci")
	dir := c.directory()
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(dir, "image")
	c.hostCommand(nil, "umoci", "init", "--layout", image)
	c.hostCommand(nil, "umoci", "new", "--image", image+":latest")
	c.hostCommand(nil, "umoci", "unpack", "--image", image+":latest", dir+"/first")
	c.smallRoot(dir + "/first/rootfs")
	c.hostCommand(nil, "umoci", "repack", "--image", image+":latest", dir+"/first")
	c.hostCommand(nil, "umoci", "config", "--image", image+":latest", "--config.env", "A=b", "--config.workingdir", "/tmp",
		"--config.cmd", "/bin/sh", "--config.cmd", "-c", "--config.cmd", foreignScript)
	bundle := dir + "/bundle"
	c.hostCommand(nil, "umoci", "unpack", "--image", image+":latest", bundle)
	const warning = "process.terminal"
	if o := c.finish(c.program("bundle", "validate", bundle)); o.code != 0 || !strings.Contains(o.out, warning) {
		t.Errorf("a bundle with a terminal: exit %d, %s%s", o.code, o.out, o.stderr)
	}
	if o := c.bundleRun(bundle); o.ExitCode == nil || *o.ExitCode != 3 || !slices.ContainsFunc(o.Warnings, func(w string) bool { return strings.Contains(w, warning) }) {
		t.Errorf("a bundle with a terminal: %s%s", o.out, o.stderr)
	}
	config, err := os.ReadFile(bundle + "/config.json")
	if err != nil {
		t.Fatal(err)
	}
	var document object
	if err := json.Unmarshal(config, &document); err != nil {
		t.Fatal(err)
	}
	document["process"].(map[string]any)["terminal"] = false
	if config, err = json.Marshal(document); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bundle+"/config.json", config, 0o600); err != nil {
		t.Fatal(err)
	}
	c.foreignRuns(bundle, "/tmp")
}

// TestBundleOfPodman runs what podman writes for its runtime, unchanged: with a control
// group at a place of podman's, a kernel parameter, and a filter that answers setns in
// two ways. Only the rlimits are said, since podman's own may be above this host's.
func TestBundleOfPodman(t *testing.T) {
	if slow() > 1 {
		t.Skip("slow machines do not compare other runtimes")
	}
	c := begin(t)
	needRuntime(t, "podman")
	needRuntime(t, "crun")
	dir := c.directory()
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir+"/root", 0o755); err != nil {
		t.Fatal(err)
	}
	c.smallRoot(dir + "/root")
	runroot, err := os.MkdirTemp("", "run-") // podman takes 50 characters
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(runroot); err != nil {
			t.Error(err)
		}
	})
	podman := func(args ...string) string {
		t.Helper()
		return c.hostCommand(nil, "podman", append([]string{"--root", dir + "/store", "--runroot", runroot, "--storage-driver", "vfs",
			"--cgroup-manager", "cgroupfs", "--events-backend", "none", "--runtime", "crun"}, args...)...)
	}
	c.hostCommand(nil, "tar", "-C", dir+"/root", "-cf", dir+"/root.tar", ".")
	podman("import", dir+"/root.tar", "capsule-test:latest")
	// A group for its containers that goes with them: podman's own would stay.
	parent := "capsule-e2e-podman-" + strconv.Itoa(os.Getpid())
	t.Cleanup(func() {
		left, err := filepath.Glob("/sys/fs/cgroup/*/" + parent)
		if err != nil {
			t.Error(err)
		}
		for _, dir := range append(left, "/sys/fs/cgroup/"+parent) {
			if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Error(err)
			}
		}
	})
	id := podman("create", "--network", "none", "--cgroups", "no-conmon", "--cgroup-parent", "/"+parent, "--ulimit", "nofile=512:512",
		"--ulimit", "nproc=512:512", "--env", "A=b", "--workdir", "/tmp", "capsule-test:latest", "/bin/sh", "-c", foreignScript)
	t.Cleanup(func() { podman("rm", "--force", id) })
	// The runtime may refuse to make it on this host; what it was given is there.
	made := exec.Command("podman", "--root", dir+"/store", "--runroot", runroot, "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs",
		"--events-backend", "none", "--runtime", "crun", "init", id)
	said, _ := made.CombinedOutput() // see above
	bundle := filepath.Join(dir, "store/vfs-containers", id, "userdata")
	config, err := os.ReadFile(bundle + "/config.json")
	if err != nil {
		t.Fatalf("podman made no bundle: %s", said)
	}
	if !bytes.Contains(config, []byte(`"cgroupsPath":"/`+parent+`/`)) || !bytes.Contains(config, []byte(`"seccomp":{`)) {
		t.Errorf("podman wrote no place for the group and no filter, so that this shows little: %s", config)
	}
	c.foreignRuns(bundle, "/tmp")
}
