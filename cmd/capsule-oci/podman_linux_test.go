package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// podman is podman with directories of its own and this program as its runtime.
type podman struct {
	t       *testing.T
	argv    []string // podman with its global options
	env     []string
	rootfs  string
	options []string // of run
}

// newPodman has a directory that everybody may enter, with a root in it, and the runtime.
func newPodman(t *testing.T) (p *podman, dir string) {
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
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	runtime := filepath.Join(dir, "capsule-oci")
	script := fmt.Sprintf("#!/bin/sh\n%s=1 exec '%s/program' --root '%s/state' \"$@\"\n", actAs, dir, dir)
	p = &podman{t: t, rootfs: filepath.Join(dir, "rootfs"), env: os.Environ()}
	for _, err := range []error{os.WriteFile(dir+"/program", self, 0o755), os.WriteFile(runtime, []byte(script), 0o755), os.MkdirAll(p.rootfs+"/etc", 0o755), os.Chmod(dir, 0o711)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	p.argv = []string{"podman", "--root", dir + "/root", "--runroot", dir + "/runroot", "--tmpdir", dir + "/tmp",
		"--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", runtime}
	compiler, err := os.ReadFile("../../bin/capsule-seccomp")
	if err == nil {
		err = os.WriteFile(dir+"/capsule-seccomp", compiler, 0o755)
	}
	if err != nil {
		lack(t, "make build has made no capsule-seccomp: "+err.Error())
	}
	// Root may not be allowed the limits that podman asks for.
	p.options = []string{"--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"}
	for _, host := range []string{"/usr", "/bin", "/lib", "/lib64", "/sbin"} {
		if st, err := os.Stat(host); err == nil && st.IsDir() {
			p.options = append(p.options, "--volume", host+":"+host+":ro")
		}
	}
	t.Cleanup(func() {
		p.end()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return p, dir
}

func (p *podman) try(args ...string) (string, int) {
	cmd := exec.Command(p.argv[0], append(p.argv[1:len(p.argv):len(p.argv)], args...)...)
	cmd.Env = p.env
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
	p, _ := newPodman(t)
	p.run(0, "Seccomp:\t2", []string{"--rm"}, "grep", "Seccomp", "/proc/self/status") // podman's own filter
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

// another is the user of TestPodmanOfAnotherUser, which every Linux has.
const another = 65534

// of makes podman that of another user than root. In a mount namespace of its own that user has
// subordinate ids, whatever the host's files say.
func (p *podman) of(uid int, dir string) {
	p.t.Helper()
	who, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		lack(p.t, err.Error())
	}
	for _, name := range []string{"newuidmap", "setpriv", "unshare"} {
		if _, err := exec.LookPath(name); err != nil {
			lack(p.t, name+" is not installed: hack/deps.sh peers")
		}
	}
	ids := []byte(who.Username + ":300000:65536\n")
	if err := os.WriteFile(dir+"/ids", ids, 0o644); err != nil {
		p.t.Fatal(err)
	}
	for _, name := range []string{"home", "root", "run", "runroot", "state", "tmp", "rootfs", "rootfs/etc"} {
		err := os.MkdirAll(filepath.Join(dir, name), 0o700)
		if err == nil {
			err = os.Chown(filepath.Join(dir, name), uid, uid)
		}
		if err != nil {
			p.t.Fatal(err)
		}
	}
	const enter = `mount --bind "$1" /etc/subuid && mount --bind "$1" /etc/subgid && shift && cd / && exec "$@"`
	p.argv = append([]string{"unshare", "--mount", "--propagation", "slave", "sh", "-c", enter, "sh", dir + "/ids",
		"setpriv", "--reuid", strconv.Itoa(uid), "--regid", strconv.Itoa(uid), "--clear-groups"}, p.argv...)
	p.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir + "/home", "XDG_RUNTIME_DIR=" + dir + "/run", "TMPDIR=" + dir + "/tmp"}
}

// end takes away the containers, and the process with which podman keeps a user namespace.
func (p *podman) end() {
	_, _ = p.try("rm", "--force", "--all") // a failed test may have left what cannot be removed
	if p.argv[0] == "podman" {
		return
	}
	if out, status := p.try("system", "migrate"); status != 0 {
		p.t.Errorf("podman system migrate: %s", out)
	}
}

// TestPodmanOfAnotherUser: podman makes a user namespace, and the program is root of that. Control
// groups are not to be had there without systemd, and podman says so itself on cgroup v1.
func TestPodmanOfAnotherUser(t *testing.T) {
	p, dir := newPodman(t)
	p.of(another, dir)
	p.run(0, "Seccomp:\t2", []string{"--rm"}, "grep", "Seccomp", "/proc/self/status") // podman's own filter
	p.run(3, "0 65534 1", []string{"--rm"}, "sh", "-c", "echo $(cat /proc/self/uid_map); exit 3")
	p.run(0, "uid=1000", []string{"--rm", "--user", "1000"}, "id")
	p.run(0, "uid=65534", []string{"--rm", "--userns", "keep-id"}, "id")
	p.run(0, "/dev/pts/0", []string{"--rm", "--tty", "--read-only"}, "sh", "-c", "touch /x 2>/dev/null || tty")
	p.run(0, "cpu", []string{"--rm"}, "ls", "/sys/fs/cgroup")
	p.run(127, "no such file or directory", []string{"--rm"}, "no-such-command")
	p.run(0, "", []string{"--detach", "--name", "d"}, "sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.1; done")
	p.call(0, "0 sh", "exec", "d", "sh", "-c", "echo $(id -u) $(cat /proc/1/comm)")
	p.call(0, "/dev/pts/", "exec", "--tty", "d", "tty")
	p.call(0, "COMMAND", "top", "d")
	p.call(0, "", "stop", "--time", "60", "d")
	p.call(0, "9", "inspect", "--format", "{{.State.ExitCode}}", "d")
	p.call(0, "", "rm", "d")
	p.run(0, "", []string{"--detach", "--name", "k"}, "sleep", "1000")
	p.call(0, "", "rm", "--force", "--time", "0", "k")
	for _, left := range []string{dir + "/state/[a-z]*", dir + "/run/capsule-oci/[a-z]*"} {
		if found, err := filepath.Glob(left); err != nil || len(found) > 0 {
			t.Errorf("left: %v %v", found, err)
		}
	}
}
