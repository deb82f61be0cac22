package main

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
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/container"
)

// actAs makes the test binary the program.
const actAs = "CAPSULE_OCI_TEST_PROGRAM"

// showProgram makes it write which file it is executed from to the file so named.
const showProgram = "CAPSULE_OCI_SHOW_PROGRAM"

func TestMain(m *testing.M) {
	if to := os.Getenv(showProgram); to != "" {
		name, err := os.Readlink("/proc/self/exe")
		if err == nil {
			err = os.WriteFile(to, []byte(name), 0o644)
		}
		if err != nil {
			panic(err)
		}
		os.Exit(0)
	}
	if secret := os.Getenv(spyOn); secret != "" {
		spy(secret)
	}
	if os.Getenv(actAs) != "" {
		main()
		os.Exit(0)
	}
	// Containers whose creator is gone are this process' children, as they are conmon's.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containers need root; TestOtherUsersAreRefused is for the others")
	}
}

// lack skips a test for what the host lacks. CI has it all.
func lack(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CAPSULE_TEST_STRICT") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// box is a bundle with a state directory.
type box struct {
	t      *testing.T
	dir    string
	config *specs.Spec
	// program is called in place of this one. Empty: this one.
	program string
}

// newBox makes a bundle whose root has the host's programs and a writable /out.
func newBox(t *testing.T, args ...string) *box {
	t.Helper()
	needRoot(t)
	b := &box{t: t, dir: t.TempDir(), config: container.Default()}
	b.mkdir("rootfs")
	b.mkdir("out")
	c := b.config
	c.Process.Terminal, c.Process.Args, c.Root.Readonly = false, args, false
	c.Process.Capabilities = &specs.LinuxCapabilities{}
	c.Linux.CgroupsPath = "" // capsule's own
	for _, host := range []string{"/usr", "/bin", "/lib", "/lib64", "/sbin"} {
		if st, err := os.Stat(host); err == nil && st.IsDir() {
			c.Mounts = append(c.Mounts, specs.Mount{Destination: host, Type: "bind", Source: host, Options: []string{"rbind", "ro"}})
		}
	}
	c.Mounts = append(c.Mounts, specs.Mount{Destination: "/out", Type: "bind", Source: b.path("out"), Options: []string{"bind", "rw"}})
	t.Cleanup(b.end)
	return b
}

func (b *box) path(name string) string { return filepath.Join(b.dir, name) }

func (b *box) mkdir(name string) {
	b.t.Helper()
	if err := os.MkdirAll(b.path(name), 0o755); err != nil {
		b.t.Fatal(err)
	}
}

// end deletes what the test left, and reaps.
func (b *box) end() {
	for _, id := range strings.Fields(b.must("list", "-q")) {
		b.must("delete", "--force", id)
	}
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if pid <= 0 || err != nil {
			return
		}
	}
}

// command is a call of the program.
func (b *box) command(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", append([]string{"--root", b.path("state")}, args...)...)
	if self, err := os.Executable(); err == nil {
		cmd.Path = self
	}
	if b.program != "" {
		cmd.Path, cmd.Args[0] = b.program, b.program
	}
	cmd.Env = append(os.Environ(), actAs+"=1")
	return cmd
}

// save writes the configuration.
func (b *box) save() {
	b.t.Helper()
	text, err := json.Marshal(b.config)
	if err == nil {
		err = os.WriteFile(b.path("config.json"), text, 0o644)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// call runs the program and gives what it wrote and its exit status. Output goes to
// files: a container keeps its streams.
func (b *box) call(args ...string) (stdout, stderr string, status int) {
	b.t.Helper()
	if args[0] == "create" || args[0] == "run" {
		b.save()
		args = append([]string{args[0], "--bundle", b.dir}, args[1:]...)
	}
	out, err := os.CreateTemp(b.dir, "stdout")
	if err != nil {
		b.t.Fatal(err)
	}
	defer out.Close()
	bad, err := os.CreateTemp(b.dir, "stderr")
	if err != nil {
		b.t.Fatal(err)
	}
	defer bad.Close()
	cmd := b.command(args...)
	cmd.Stdout, cmd.Stderr = out, bad
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		b.t.Fatal(err)
	}
	read := func(f *os.File) string { text, _ := os.ReadFile(f.Name()); return string(text) }
	return read(out), read(bad), cmd.ProcessState.ExitCode()
}

func (b *box) must(args ...string) string {
	b.t.Helper()
	out, bad, status := b.call(args...)
	if status != 0 {
		b.t.Fatalf("capsule-oci %s: exit status %d\n%s%s", strings.Join(args, " "), status, out, bad)
	}
	return out
}

// refused calls and wants an error with all of the words.
func (b *box) refused(words []string, args ...string) {
	b.t.Helper()
	out, bad, status := b.call(args...)
	if status != 1 {
		b.t.Errorf("capsule-oci %s: exit status %d, want 1\n%s%s", strings.Join(args, " "), status, out, bad)
	}
	for _, w := range words {
		if !strings.Contains(bad, w) {
			b.t.Errorf("capsule-oci %s says %q, want %q in it", strings.Join(args, " "), bad, w)
		}
	}
}

func (b *box) state(id string) specs.State {
	b.t.Helper()
	var s specs.State
	if err := json.Unmarshal([]byte(b.must("state", id)), &s); err != nil {
		b.t.Fatal(err)
	}
	return s
}

// patience bounds a wait in an emulated machine.
const patience = 2 * time.Minute

// free waits until no call has the container.
func (b *box) free(id string) {
	b.t.Helper()
	dir, err := os.Open(b.path("state/" + id))
	if err != nil {
		b.t.Fatal(err)
	}
	defer dir.Close()
	for err = unix.EINTR; err == unix.EINTR; {
		err = unix.Flock(int(dir.Fd()), unix.LOCK_SH)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// stops waits until the container's first process has ended.
func (b *box) stops(id string) {
	b.t.Helper()
	s := b.state(id)
	if s.Pid > 0 {
		if fd, err := unix.PidfdOpen(s.Pid, 0); err == nil { // else it is gone
			await(b.t, fd, "the end of the container's process")
			unix.Close(fd)
		}
		s = b.state(id)
	}
	if s.Status != specs.StateStopped {
		b.t.Fatalf("the container is %s", s.Status)
	}
}

// await waits until a descriptor can be read.
func await(t *testing.T, fd int, what string) {
	t.Helper()
	if err := readable(fd); err != nil {
		t.Fatalf("%s does not come: %v", what, err)
	}
}

// readable waits until a descriptor can be read. ETIMEDOUT: it cannot within patience.
func readable(fd int) error {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience.Milliseconds()))
		if err == nil && n == 0 {
			err = unix.ETIMEDOUT
		}
		if err != unix.EINTR {
			return err
		}
	}
}

func (b *box) out(name string) string {
	text, err := os.ReadFile(filepath.Join(b.path("out"), name))
	if errors.Is(err, os.ErrNotExist) {
		return ""
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return string(text)
}

// written waits for a file of /out.
func (b *box) written(name string) string {
	b.t.Helper()
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		b.t.Fatal(err)
	}
	defer unix.Close(watch)
	if _, err := unix.InotifyAddWatch(watch, b.path("out"), unix.IN_MODIFY|unix.IN_CLOSE_WRITE|unix.IN_MOVED_TO); err != nil {
		b.t.Fatal(err)
	}
	var news [4096]byte
	for {
		if text := b.out(name); text != "" {
			return text
		}
		await(b.t, watch, name)
		if _, err := unix.Read(watch, news[:]); err != nil && err != unix.EINTR {
			b.t.Fatal(err)
		}
	}
}

// groups are the directories of control groups with the container's name.
func groups(id string) []string {
	var found []string
	for _, pattern := range []string{"/sys/fs/cgroup/capsule-oci/@*/", "/sys/fs/cgroup/*/capsule-oci/@*/"} {
		list, _ := filepath.Glob(pattern + id)
		found = append(found, list...)
	}
	return found
}

func TestLifecycle(t *testing.T) {
	b := newBox(t, "sh", "-c", "trap 'exit 7' TERM; echo up >/out/up; while :; do sleep 0.1; done")
	id := "life" + strconv.Itoa(os.Getpid())
	b.must("create", "--pid-file", b.path("pid"), id)
	s := b.state(id)
	if pid, err := os.ReadFile(b.path("pid")); err != nil || string(pid) != strconv.Itoa(s.Pid) {
		t.Errorf("pid file %q %v, want %d", pid, err, s.Pid)
	}
	if s.Status != specs.StateCreated || s.Bundle != b.dir || s.ID != id || s.Version != specs.Version || b.out("up") != "" {
		t.Errorf("after create: %+v, %q", s, b.out("up"))
	}
	b.refused([]string{"E1001", "created"}, "delete", id)
	b.refused([]string{"E1001", "exists"}, "create", id)
	b.must("start", id)
	b.written("up")
	b.refused([]string{"E1001", "running"}, "start", id)
	b.refused([]string{"E1001", "running"}, "delete", id)
	if st := b.state(id).Status; st != specs.StateRunning {
		t.Errorf("after start: %s", st)
	}
	out, bad, status := b.call("exec", "--env", "A=b", "--cwd", "/out", id, "sh", "-c", "echo $A $(pwd) $$; exit 3")
	if fields := strings.Fields(out); status != 3 || len(fields) != 3 || fields[0] != "b" || fields[1] != "/out" || fields[2] == "1" {
		t.Errorf("exec: %q %q %d", out, bad, status)
	}
	var pids []int
	if err := json.Unmarshal([]byte(b.must("ps", "--format", "json", id)), &pids); err != nil || !slices.Contains(pids, s.Pid) {
		t.Errorf("ps: %v %v", pids, err)
	}
	b.must("pause", id)
	if st := b.state(id).Status; st != "paused" {
		t.Errorf("after pause: %s", st)
	}
	b.refused([]string{"E1001", "paused"}, "exec", id, "true")
	b.must("resume", id)
	if !strings.Contains(b.must("events", "--stats", id), `"type":"stats"`) {
		t.Error("no stats")
	}
	b.must("kill", id, "TERM")
	b.stops(id)
	var ws unix.WaitStatus
	if pid, err := unix.Wait4(s.Pid, &ws, 0, nil); pid != s.Pid || ws.ExitStatus() != 7 {
		t.Errorf("wait: %d %v %v", pid, err, ws.ExitStatus())
	}
	b.refused([]string{"E1001", "stopped"}, "kill", id)
	if len(groups(id)) == 0 {
		t.Error("there is no control group")
	}
	b.must("delete", id)
	if left := groups(id); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	b.refused([]string{"E6007"}, "state", id)
	b.refused([]string{"E6007"}, "delete", id)
	b.must("delete", "--force", id)
}

func TestRunAndExitStatus(t *testing.T) {
	b := newBox(t, "sh", "-c", "echo out; echo bad >&2; cat /proc/self/status; exit 42")
	out, bad, status := b.call("run", "r1")
	if status != 42 || !strings.HasPrefix(out, "out\n") || bad != "bad\n" {
		t.Errorf("%q %q %d", out, bad, status)
	}
	for _, want := range []string{"NoNewPrivs:\t1", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in %s", want, out)
		}
	}
	b.config.Process.Args = []string{"sh", "-c", "kill -9 $PPID; kill -KILL $$"}
	b.config.Linux.Namespaces = slices.DeleteFunc(b.config.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace })
	b.config.Process.Args = []string{"sh", "-c", "kill -KILL $$"}
	if _, _, status := b.call("run", "r2"); status != 128+9 {
		t.Errorf("killed: %d", status)
	}
	b.config.Process.Args = []string{"no-such-command"}
	b.refused([]string{"E3003", "no such file or directory"}, "create", "r3")
	if ids := b.must("list", "-q"); ids != "" {
		t.Errorf("left: %s", ids)
	}
}

// TestDescriptors: the command has 0, 1 and 2 and what is preserved, and a hook not even
// that.
func TestDescriptors(t *testing.T) {
	b := newBox(t, "sh", "-c", "ls /proc/$$/fd >/out/fds")
	b.config.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "ls /proc/$$/fd >" + b.path("out/hook")}}}}
	secret, err := os.Open("/etc")
	if err != nil {
		t.Fatal(err)
	}
	defer secret.Close()
	for _, c := range []struct{ preserve, want string }{{"0", "0 1 2"}, {"1", "0 1 2 3"}} {
		b.config.Process.Args[0] = "sh"
		text, _ := json.Marshal(b.config)
		if err := os.WriteFile(b.path("config.json"), text, 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := b.command("run", "--bundle", b.dir, "--preserve-fds", c.preserve, "fds")
		cmd.ExtraFiles = []*os.File{secret} // descriptor 3
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		// A shell opens the redirection's file for itself while it lists.
		if got := names(b.out("fds")); got != c.want {
			t.Errorf("preserve %s: the command has %s", c.preserve, got)
		}
		if got := names(b.out("hook")); got != "0 1 2" {
			t.Errorf("preserve %s: the hook has %s", c.preserve, got)
		}
	}
	b.refused([]string{"preserve"}, "create", "--preserve-fds", "200", "none")
}

// names are the descriptors of a list up to 9; shells save theirs from 10 on.
func names(list string) string {
	var low []string
	for _, f := range strings.Fields(list) {
		if len(f) == 1 {
			low = append(low, f)
		}
	}
	slices.Sort(low)
	return strings.Join(low, " ")
}

// TestHooks: all six, in their places and order, with the state on stdin.
func TestHooks(t *testing.T) {
	b := newBox(t, "sh", "-c", "echo command >>/out/order")
	hook := func(name, dir string) specs.Hook {
		script := "s=$(cat); echo \"$s\" >" + dir + "/" + name + "; echo " + name + " >>" + dir + "/order; grep CapEff /proc/self/status >" + dir + "/" + name + ".caps; readlink /proc/self/ns/mnt >" + dir + "/" + name + ".ns"
		return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"}}
	}
	out := b.path("out")
	//lint:ignore SA1019 The deprecated hook is called.
	b.config.Hooks = &specs.Hooks{Prestart: []specs.Hook{hook("prestart", out)}, CreateRuntime: []specs.Hook{hook("createRuntime", out)},
		CreateContainer: []specs.Hook{hook("createContainer", out)}, StartContainer: []specs.Hook{hook("startContainer", "/out")},
		Poststart: []specs.Hook{{Path: "/bin/false"}, hook("poststart", out)}, Poststop: []specs.Hook{{Path: "/bin/false"}, hook("poststop", out)}}
	b.config.Annotations = map[string]string{"who": "me"}
	b.must("create", "h1")
	pid := b.state("h1").Pid
	b.must("start", "h1")
	b.stops("h1")
	b.must("delete", "h1")
	order := strings.Fields(b.out("order"))
	if at := slices.Index(order, "command"); at < 0 || strings.Join(slices.Delete(slices.Clone(order), at, at+1), " ") != "prestart createRuntime createContainer startContainer poststart poststop" || at < 4 || at > 5 {
		t.Errorf("order: %v", order)
	}
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		status specs.ContainerState
		inside bool
	}{"prestart": {specs.StateCreated, false}, "createRuntime": {specs.StateCreated, false}, "createContainer": {specs.StateCreated, true},
		"startContainer": {specs.StateCreated, true}, "poststart": {specs.StateRunning, false}, "poststop": {specs.StateStopped, false}} {
		var s specs.State
		if err := json.Unmarshal([]byte(b.out(name)), &s); err != nil {
			t.Fatalf("%s: %v: %q", name, err, b.out(name))
		}
		if s.Status != want.status || s.ID != "h1" || s.Bundle != b.dir || s.Annotations["who"] != "me" || want.status != specs.StateStopped && s.Pid != pid {
			t.Errorf("%s: %+v", name, s)
		}
		if inside := strings.TrimSpace(b.out(name+".ns")) != own; inside != want.inside {
			t.Errorf("%s is in the container's mount namespace: %v", name, inside)
		}
	}
	// The program of a hook in the container's root is the root's: it gets no more than the command.
	if got := b.out("startContainer.caps"); got != "CapEff:\t0000000000000000\n" {
		t.Errorf("startContainer has %q", got)
	}
	b.config.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo because >&2; exit 3"}}}}
	b.refused([]string{"hook createContainer", "because"}, "create", "h2")
	b.config.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "exec sleep 1000"}, Timeout: new(int)}}}
	*b.config.Hooks.CreateRuntime[0].Timeout = 1
	b.refused([]string{"timeout"}, "create", "h3")
	if ids := b.must("list", "-q"); ids != "" || len(groups("h2"))+len(groups("h3")) > 0 {
		t.Errorf("left: %s", ids)
	}
}

// TestCreateIsKilled: a creation that dies at any time leaves what delete takes away.
func TestCreateIsKilled(t *testing.T) {
	b := newBox(t, "true")
	b.config.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "cat >" + b.path("out/hook") + "; exec sleep 1000"}}}}
	text, err := json.Marshal(b.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.path("config.json"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	id := "killed" + strconv.Itoa(os.Getpid())
	cmd := b.command("create", "--bundle", b.dir, id)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var said bytes.Buffer
	cmd.Stderr = &said
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var s specs.State
	if err := json.Unmarshal([]byte(b.written("hook")), &s); err != nil {
		t.Fatal(err, said.String())
	}
	if st := b.state(id).Status; st != specs.StateCreating {
		t.Errorf("while it is created: %s", st)
	}
	_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) // the hook too
	_ = cmd.Wait()                                // killed
	b.free(id)
	b.stops(id)
	if len(groups(id)) == 0 {
		t.Error("there is no control group to clean")
	}
	b.must("delete", id)
	if left := groups(id); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if err := unix.Kill(s.Pid, 0); err == nil {
		var ws unix.WaitStatus
		if pid, _ := unix.Wait4(s.Pid, &ws, unix.WNOHANG, nil); pid != s.Pid {
			t.Error("the container's process lives")
		}
	}
}
