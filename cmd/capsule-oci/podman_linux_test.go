package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// podman is podman with directories of its own and this program as its runtime.
type podman struct {
	t       *testing.T
	global  []string
	rootfs  string
	options []string
}

func newPodman(t *testing.T) *podman {
	t.Helper()
	needRoot(t)
	if _, err := exec.LookPath("podman"); err != nil {
		lack(t, "podman is not installed: hack/deps.sh peers")
	}
	// conmon's sockets need a short path.
	dir, err := os.MkdirTemp("/tmp", "pod")
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	runtime := filepath.Join(dir, "capsule-oci")
	script := fmt.Sprintf("#!/bin/sh\n%s=1 exec '%s' --root '%s/state' \"$@\"\n", actAs, self, dir)
	if err := os.WriteFile(runtime, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	p := &podman{t: t, rootfs: filepath.Join(dir, "rootfs"), global: []string{"--root", dir + "/root", "--runroot", dir + "/runroot", "--tmpdir", dir + "/tmp",
		"--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", runtime}}
	if err := os.MkdirAll(p.rootfs+"/etc", 0o755); err != nil {
		t.Fatal(err)
	}
	// The filter's compiler is not beside a test's program, and root may not be allowed
	// the limits that podman asks for.
	p.options = []string{"--network", "none", "--security-opt", "seccomp=unconfined", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"}
	for _, host := range []string{"/usr", "/bin", "/lib", "/lib64", "/sbin"} {
		if st, err := os.Stat(host); err == nil && st.IsDir() {
			p.options = append(p.options, "--volume", host+":"+host+":ro")
		}
	}
	t.Cleanup(func() {
		_, _ = p.try("rm", "--force", "--all")
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return p
}

func (p *podman) try(args ...string) (string, int) {
	cmd := exec.Command("podman", append(p.global[:len(p.global):len(p.global)], args...)...)
	out, _ := cmd.CombinedOutput() // the exit status says it
	return strings.TrimSpace(string(out)), cmd.ProcessState.ExitCode()
}

// call wants an exit status and something in the output.
func (p *podman) call(status int, want string, args ...string) {
	p.t.Helper()
	out, got := p.try(args...)
	if got != status || !strings.Contains(out, want) {
		p.t.Errorf("podman %s: exit status %d, want %d; %q is to be in it:\n%s", strings.Join(args, " "), got, status, want, out)
	}
}

// run is podman run with the options of this host.
func (p *podman) run(status int, want string, flags []string, command ...string) {
	p.t.Helper()
	args := append(append([]string{"run"}, p.options...), flags...)
	p.call(status, want, append(append(args, "--rootfs", p.rootfs), command...)...)
}

// TestPodman goes through what a user of podman does.
func TestPodman(t *testing.T) {
	p := newPodman(t)
	p.run(5, "hello", []string{"--rm"}, "sh", "-c", "echo hello; exit 5")
	p.run(127, "no such file or directory", []string{"--rm"}, "no-such-command")
	p.run(0, "/dev/pts/0", []string{"--rm", "--tty"}, "tty")
	p.run(0, "tmp", []string{"--rm", "--read-only"}, "sh", "-c", "touch /x 2>/dev/null || touch /tmp/y && echo tmp")
	p.run(0, "", []string{"--detach", "--name", "d", "--memory", "64m", "--pids-limit", "50", "--cpus", "0.5"}, "sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.1; done")
	for _, limit := range []struct{ v1, v2, want string }{{"memory/memory.limit_in_bytes", "memory.max", "67108864"}, {"pids/pids.max", "pids.max", "50"}, {"cpu/cpu.cfs_quota_us", "cpu.max", "50000"}} {
		p.call(0, limit.want, "exec", "d", "sh", "-c", "cat /sys/fs/cgroup/"+limit.v1+" 2>/dev/null || cat /sys/fs/cgroup/"+limit.v2)
	}
	p.call(4, "", "exec", "d", "sh", "-c", "exit 4")
	p.call(0, "/dev/pts/", "exec", "--tty", "d", "tty")
	p.call(0, "67.11MB", "stats", "--no-stream", "d")
	p.call(0, "", "pause", "d")
	p.call(0, "paused", "inspect", "--format", "{{.State.Status}}", "d")
	p.call(0, "", "unpause", "d")
	p.call(0, "", "stop", "--time", "60", "d")
	p.call(0, "9", "inspect", "--format", "{{.State.ExitCode}}", "d")
	p.call(0, "", "rm", "d")
	p.run(0, "", []string{"--detach", "--name", "k"}, "sleep", "1000")
	p.call(0, "", "rm", "--force", "--time", "0", "k")
}
