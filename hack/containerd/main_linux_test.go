package containerd

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain makes this process the parent of every orphan, so that what is left of a
// container is a child that the check finds.
func TestMain(m *testing.M) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	code := m.Run()
	if err := os.RemoveAll(built()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

const (
	image = "docker.io/library/test:1"
	shim  = "io.containerd.capsule.v2"
	// patience bounds what has to happen soon.
	patience = time.Minute
)

// built is the directory of programs that are made for the tests, where bin has none.
var built = sync.OnceValue(func() string {
	dir, err := os.MkdirTemp("", "capsule-containerd-bin-")
	if err != nil {
		panic(err)
	}
	return dir
})

// programs is the directory of the shim and of capsule-seccomp.
var programs = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("CAPSULE_BIN"); dir != "" {
		return filepath.Abs(dir)
	}
	if _, err := os.Stat("../../bin/containerd-shim-capsule-v2"); err == nil {
		return filepath.Abs("../../bin")
	}
	for _, b := range []struct{ cgo, tags, program string }{
		{"CGO_ENABLED=0", "urfave_cli_no_docs", "containerd-shim-capsule-v2"},
		{"CGO_ENABLED=1", "urfave_cli_no_docs,osusergo,netgo", "capsule-seccomp"},
	} {
		build := exec.Command("go", "build", "-tags", b.tags, "-o", built()+"/", "../../cmd/"+b.program)
		build.Env = append(os.Environ(), b.cgo)
		if out, err := build.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %s: %w\n%s", b.program, err, out)
		}
	}
	return built(), nil
})

// lack skips a test for what the host lacks. CI has it all.
func lack(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CAPSULE_TEST_STRICT") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// daemon is a containerd with directories of its own.
type daemon struct {
	t         *testing.T
	dir       string
	namespace string   // of containerd's: also the name of our control groups
	mounts    *os.File // the mount namespace in which it and its clients are
	cmd       *exec.Cmd
	log       *os.File
	children  map[int]bool // those that are not the test's
}

// begin starts a containerd that has an image of busybox.
func begin(t *testing.T) *daemon {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containerd needs root")
	}
	if os.Getenv("VMTEST") != "" {
		t.Skip("the virtual machines have no containerd; machines of CI do")
	}
	for _, name := range []string{"containerd", "ctr", "nsenter", "busybox"} {
		if _, err := exec.LookPath(name); err != nil {
			lack(t, name+" is not installed: hack/deps.sh peers")
		}
	}
	d := &daemon{t: t, dir: t.TempDir(), namespace: "capsule-test-" + strconv.Itoa(os.Getpid()) + "-" + t.Name(), children: living()}
	d.mounts = privateRun(t)
	t.Cleanup(d.end)
	var err error
	if d.log, err = os.Create(filepath.Join(d.dir, "log")); err != nil {
		t.Fatal(err)
	}
	config := `version = 2
root = "` + d.dir + `/root"
state = "/run/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.nri.v1.nri"]
[grpc]
address = "/run/containerd/containerd.sock"
`
	if err := os.WriteFile(filepath.Join(d.dir, "config.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	d.start()
	archive := filepath.Join(d.dir, "image.tar")
	writeImage(t, archive)
	d.must("images", "import", archive)
	return d
}

// privateRun makes a mount namespace with an empty /run. A namespace needs no process: the
// descriptor holds it.
func privateRun(t *testing.T) *os.File {
	t.Helper()
	var f *os.File
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is of no use to others
		err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=0755")
		}
		if err == nil {
			f, err = os.Open("/proc/thread-self/ns/mnt")
		}
		result <- err
	}()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	return f
}

// inside is a command in the namespace.
func (d *daemon) inside(ctx context.Context, args ...string) *exec.Cmd {
	d.t.Helper()
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--mount=/proc/self/fd/3", "--"}, args...)...)
	cmd.ExtraFiles = []*os.File{d.mounts}
	cmd.WaitDelay = 5 * time.Second
	bin, err := programs()
	if err != nil {
		d.t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	return cmd
}

// start starts containerd and waits until it serves: it tells so as systemd wants it.
func (d *daemon) start() {
	d.t.Helper()
	name := filepath.Join(d.dir, "ready")
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		d.t.Fatal(err)
	}
	defer os.Remove(name)
	defer ready.Close()
	d.cmd = d.inside(context.Background(), "containerd", "--config", filepath.Join(d.dir, "config.toml"))
	d.cmd.Env = append(d.cmd.Env, "NOTIFY_SOCKET="+name)
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	if err := ready.SetReadDeadline(time.Now().Add(patience)); err != nil {
		d.t.Fatal(err)
	}
	if _, err := ready.Read(make([]byte, 100)); err != nil {
		d.t.Fatalf("containerd does not start: %v\n%s", err, d.said())
	}
}

// stop kills containerd.
func (d *daemon) stop() {
	if d.cmd != nil && d.cmd.Process != nil {
		_ = d.cmd.Process.Kill() // it may have ended
		_ = d.cmd.Wait()         // it was killed
		d.cmd = nil
	}
}

// said is the end of containerd's log.
func (d *daemon) said() string {
	text, _ := os.ReadFile(filepath.Join(d.dir, "log"))
	return string(text[max(0, len(text)-4000):])
}

// end checks that nothing is left and takes containerd away.
func (d *daemon) end() {
	d.await("nothing to be left", func() bool { return len(d.left()) == 0 })
	for _, what := range d.left() {
		d.t.Error("left behind: " + what)
	}
	if d.t.Failed() {
		d.t.Logf("containerd's log:\n%s", d.said())
	}
	d.stop()
	for pid := range living() {
		if !d.children[pid] {
			_ = unix.Kill(pid, unix.SIGKILL) // our child, which nobody else waits for
			_, _ = unix.Wait4(pid, nil, unix.WALL, nil)
		}
	}
	d.mounts.Close()
	parents, _ := filepath.Glob("/sys/fs/cgroup/{*/,}" + d.namespace) // the pattern is well formed
	for _, dir := range append(parents, groups(d.namespace)...) {
		_ = os.Remove(dir) // containerd's clients leave it
	}
}

// await waits for what sends no event.
func (d *daemon) await(what string, done func() bool) {
	d.t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			d.t.Errorf("waited in vain for %s", what)
			return
		}
	}
}

// left lists processes, mounts, sockets, directories and control groups of containers.
func (d *daemon) left() (all []string) {
	for pid := range living() {
		if !d.children[pid] && (d.cmd == nil || pid != d.cmd.Process.Pid) {
			var status unix.WaitStatus
			if got, err := unix.Wait4(pid, &status, unix.WNOHANG|unix.WALL, nil); err == nil && got == pid {
				continue
			}
			text, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
			all = append(all, "process "+strconv.Itoa(pid)+" "+strings.ReplaceAll(string(text), "\x00", " "))
		}
	}
	if d.cmd == nil {
		return all
	}
	ns := "/proc/" + strconv.Itoa(d.cmd.Process.Pid)
	mounts, err := os.ReadFile(ns + "/mountinfo")
	if err != nil {
		all = append(all, err.Error())
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, "/rootfs") {
			all = append(all, "mount "+line)
		}
	}
	for _, pattern := range []string{"/run/capsule-oci/s/*", "/run/containerd/io.containerd.runtime.v2.task/*/*"} {
		found, _ := filepath.Glob(ns + "/root" + pattern) // the pattern is well formed
		all = append(all, found...)
	}
	for _, dir := range groups(d.namespace) {
		if filepath.Base(dir) != d.namespace {
			all = append(all, "group "+dir)
		}
	}
	return all
}

// groups are the control groups below that name.
func groups(name string) (all []string) {
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() && strings.Contains(path, name) {
			all = append(all, path)
		}
		return nil // groups of others come and go
	})
	return all
}

// living are our children.
func living() map[int]bool {
	all := map[int]bool{}
	tasks, _ := filepath.Glob("/proc/self/task/*/children") // the pattern is well formed
	for _, name := range tasks {
		text, _ := os.ReadFile(name) // of a thread that has just ended
		for word := range strings.FieldsSeq(string(text)) {
			if pid, err := strconv.Atoi(word); err == nil {
				all[pid] = true
			}
		}
	}
	return all
}

// result is what a client printed.
type result struct {
	out, err string
	status   int
}

// ctr calls containerd's client.
func (d *daemon) ctr(args ...string) result {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	cmd := d.client(ctx, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); cmd.ProcessState == nil {
		d.t.Fatal(err)
	}
	return result{out.String(), withoutWarnings(errs.String()), cmd.ProcessState.ExitCode()}
}

// withoutWarnings leaves out what containerd 2 says of hosts with cgroup v1.
func withoutWarnings(text string) string {
	var kept strings.Builder
	for line := range strings.Lines(text) {
		if !strings.Contains(line, "DEPRECATION") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

func (d *daemon) client(ctx context.Context, args ...string) *exec.Cmd {
	d.t.Helper()
	return d.inside(ctx, append([]string{"ctr", "--namespace", d.namespace}, args...)...)
}

// must is a call that succeeds.
func (d *daemon) must(args ...string) string {
	d.t.Helper()
	r := d.ctr(args...)
	if r.status != 0 {
		d.t.Fatalf("ctr %q: exit status %d: %s\n%s", args, r.status, r.err, d.said())
	}
	return r.out
}

// run runs a container to its end.
func (d *daemon) run(id string, flags []string, command ...string) result {
	d.t.Helper()
	return d.ctr(append(append([]string{"run", "--rm", "--runtime", shim}, flags...), append([]string{image, id}, command...)...)...)
}

// heard is run for a container that says something. A ctr of 1.6 that has not come to open
// the output when its container ends gives it up; on a busy machine that is one run in
// forty, with runc too. So silence is asked again.
func (d *daemon) heard(id string, flags []string, command ...string) result {
	d.t.Helper()
	return heard(id, func(id string) result { return d.run(id, flags, command...) }, func(r result) bool { return r.out != "" || r.err != "" })
}

// heard makes a call with an id of its own, and again with others until enough is said.
func heard(id string, call func(id string) result, enough func(result) bool) result {
	r := call(id)
	for again := 0; again < 2 && !enough(r); again++ {
		r = call(fmt.Sprint(id, "-", again))
	}
	return r
}

// exec executes a further process in a container. What it says may be given up as that of run is.
func (d *daemon) exec(id string, enough func(result) bool, args ...string) result {
	d.t.Helper()
	return heard(id, func(id string) result { return d.ctr(append([]string{"tasks", "exec", "--exec-id", id}, args...)...) }, enough)
}

// detached begins a container that goes on.
func (d *daemon) detached(id string, flags []string, command ...string) {
	d.t.Helper()
	d.must(append(append([]string{"run", "--detach", "--runtime", shim}, flags...), append([]string{image, id}, command...)...)...)
}

// status is what containerd says of a container: "" when it has no task.
func (d *daemon) status(id string) string {
	d.t.Helper()
	for line := range strings.Lines(d.must("tasks", "list")) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == id {
			return f[2]
		}
	}
	return ""
}

// pid is a container's first process.
func (d *daemon) pid(id string) int {
	d.t.Helper()
	for line := range strings.Lines(d.must("tasks", "list")) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == id {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				d.t.Fatal(err)
			}
			return n
		}
	}
	d.t.Fatal("no task " + id)
	return 0
}

// kill ends a container and deletes it.
func (d *daemon) kill(id string) {
	d.t.Helper()
	d.must("tasks", "kill", "--signal", "SIGKILL", id)
	d.await("the end of "+id, func() bool { return d.status(id) == "STOPPED" })
	d.ctr("tasks", "delete", id) // whose exit status is the task's
	d.must("containers", "delete", id)
}

// servers are the pids of our shims.
func (d *daemon) servers() (all []int) {
	for pid := range living() {
		text, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		if strings.Contains(string(text), "containerd-shim-capsule-v2") && strings.HasSuffix(string(text), "serve\x00") {
			all = append(all, pid)
		}
	}
	return all
}
