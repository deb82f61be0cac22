package kubernetes

import (
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// node is a directory in the place of a node's root.
type node struct {
	t          *testing.T
	host, from string
}

func newNode(t *testing.T, config string) *node {
	n := &node{t, t.TempDir(), t.TempDir()}
	for _, p := range []string{"containerd-shim-capsule-v2", "capsule-seccomp", "capsule-oci"} {
		write(t, filepath.Join(n.from, "bin", p), "program "+p)
	}
	for _, p := range []string{"default", "strict", "network"} {
		write(t, filepath.Join(n.from, "seccomp", p+".json"), "{}")
	}
	if config != "" {
		write(t, n.config(), config)
	}
	return n
}

func (n *node) config() string { return filepath.Join(n.host, "etc/containerd/config.toml") }

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// install runs the script. Its restarts of containerd are lines of the file restarts.
func (n *node) install(verb string) (string, error) {
	cmd := exec.Command("./install.sh", verb)
	cmd.Env = append(os.Environ(), "BIN=/usr/local/bin", "CONFIG=/etc/containerd/config.toml", "KUBELET=/var/lib/kubelet", "HOST="+n.host, "FROM="+n.from, "RESTART=tee -a "+filepath.Join(n.from, "restarts"))
	cmd.Stdin = strings.NewReader("restarted\n")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (n *node) must(verb string) string {
	n.t.Helper()
	out, err := n.install(verb)
	if err != nil {
		n.t.Fatalf("%s: %v\n%s", verb, err, out)
	}
	return out
}

// files are all of the node's, by name.
func (n *node) files() map[string]string {
	n.t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(n.host, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		all[strings.TrimPrefix(path, n.host+"/")] = string(text)
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return all
}

const (
	third  = "version = 3\nroot = \"/var/lib/containerd\"\n\n[grpc]\n  uid = 0\n"
	fourth = "version = 4\nroot = '/var/lib/containerd'\nimports = ['/etc/containerd/conf.d/*.toml']\n" // as containerd 2.4 writes it
	second = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n"
)

func TestInstall(t *testing.T) {
	for name, c := range map[string]struct{ before, file, plugin string }{
		"containerd 2.4": {fourth, "etc/containerd/conf.d/capsule.toml", `[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.capsule]`},
		"containerd 2":   {third, "etc/containerd/conf.d/capsule.toml", `[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.capsule]`},
		"containerd 1.7": {second, "etc/containerd/config.toml", `[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.capsule]`},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, c.before)
			if out := n.must("install"); !strings.Contains(out, "containerd is restarted") {
				t.Errorf("containerd does not learn of it:\n%s", out)
			}
			files := n.files()
			if text := files[c.file]; !strings.Contains(text, c.plugin) || !strings.Contains(text, `"run.capsule.verdict"`) {
				t.Errorf("%s:\n%s", c.file, text)
			}
			if !strings.Contains(files["etc/containerd/config.toml"], c.before) {
				t.Errorf("what was there is gone:\n%s", files["etc/containerd/config.toml"])
			}
			if files["usr/local/bin/containerd-shim-capsule-v2"] == "" || files["var/lib/kubelet/seccomp/capsule/strict.json"] != "{}" {
				t.Errorf("there is only %q", slices.Sorted(maps.Keys(files)))
			}
			if info, err := os.Stat(filepath.Join(n.host, "usr/local/bin/capsule-seccomp")); err != nil || info.Mode().Perm() != 0o755 {
				t.Errorf("%v, %v", info, err)
			}
			if out := n.must("install"); out != "" || !maps.Equal(files, n.files()) {
				t.Errorf("it is done twice:\n%s", out)
			}
			n.must("remove")
			if left := n.files(); len(left) != 1 || left["etc/containerd/config.toml"] != c.before {
				t.Errorf("left: %q", left)
			}
			restarts, err := os.ReadFile(filepath.Join(n.from, "restarts"))
			if err != nil || string(restarts) != "restarted\nrestarted\n" {
				t.Errorf("restarts: %q, %v", restarts, err)
			}
		})
	}
}

// TestInstallRefuses leaves a configuration alone that it does not understand.
func TestInstallRefuses(t *testing.T) {
	for words, config := range map[string]string{
		"is missing":          "",
		"is of version 9":     "version = 9\n",
		"is of version 1":     "root = \"/x\"\n",
		"capsule already":     second + "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.capsule]\n",
		"imports other files": "imports = [\"/etc/other.toml\"]\n" + third,
	} {
		n := newNode(t, config)
		out, err := n.install("install")
		if err == nil || !strings.Contains(out, words) || strings.Contains(out, "restarted") {
			t.Errorf("%q: %v\n%s", config, err, out)
		}
		if got := n.files()["etc/containerd/config.toml"]; got != config {
			t.Errorf("%q became %q", config, got)
		}
	}
}

// TestContainerdReads lets containerd itself read what is written.
func TestContainerdReads(t *testing.T) {
	program, err := exec.LookPath("containerd")
	if err != nil {
		if os.Getenv("CAPSULE_TEST_STRICT") == "1" {
			t.Fatal(err)
		}
		t.Skip("there is no containerd")
	}
	about, err := exec.Command(program, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	config := second
	if strings.Contains(string(about), " v2.") || strings.Contains(string(about), " 2.") {
		config = third
	}
	n := newNode(t, config)
	n.must("install")
	text, err := os.ReadFile(n.config())
	if err != nil {
		t.Fatal(err)
	}
	// The names of imports are the node's.
	write(t, n.config(), strings.ReplaceAll(string(text), "\"/etc/", "\""+n.host+"/etc/"))
	out, err := exec.Command(program, "-c", n.config(), "config", "dump").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_, capsule, found := strings.Cut(string(out), "containerd.runtimes.capsule]")
	capsule, _, _ = strings.Cut(capsule, "[plugins")
	if !found || !strings.Contains(capsule, "io.containerd.capsule.v2") || !strings.Contains(capsule, "run.capsule.verdict") {
		t.Errorf("containerd reads:\n%s", capsule)
	}
	if !strings.Contains(string(out), "containerd.runtimes.runc") && config == second {
		t.Error("the other runtime is gone")
	}
}

// TestSystemdDriver: the driver of control groups is that of the node's other runtimes, also
// when it changes later.
func TestSystemdDriver(t *testing.T) {
	const runc = "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n  SystemdCgroup = "
	const ours = "runtimes.capsule.options]\n  SystemdCgroup = true\n"
	for _, version := range []string{"2", "3"} {
		n := newNode(t, "version = "+version+"\n"+runc+"true\n")
		where := "etc/containerd/config.toml"
		if version == "3" {
			where = "etc/containerd/conf.d/capsule.toml"
		}
		n.must("install")
		if text := n.files()[where]; !strings.Contains(text, ours) {
			t.Errorf("version %s, systemd: %s", version, text)
		}
		text := n.files()["etc/containerd/config.toml"]
		write(t, n.config(), strings.Replace(text, runc+"true", runc+"false", 1))
		n.must("install")
		if text := n.files()[where]; strings.Contains(text, ours) {
			t.Errorf("version %s, cgroupfs: %s", version, text)
		}
	}
}
