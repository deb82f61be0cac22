package containerd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// session is a client that is attached to a container.
type session struct {
	d      *daemon
	cmd    *exec.Cmd
	in     io.WriteCloser
	lines  *bufio.Reader
	cancel context.CancelFunc
}

// attach starts a client with its stdin and stdout in our hands.
func (d *daemon) attach(args ...string) *session {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	s := &session{d: d, cmd: d.client(ctx, args...), cancel: cancel}
	d.t.Cleanup(cancel)
	var err error
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		d.t.Fatal(err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	s.cmd.Stderr = s.d.log
	s.lines = bufio.NewReader(out)
	if err := s.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	return s
}

// reads wants a line.
func (s *session) reads(want string) {
	s.d.t.Helper()
	line, err := s.lines.ReadString('\n')
	if strings.TrimSpace(line) != want {
		s.d.t.Fatalf("read %q (%v), want %q", line, err, want)
	}
}

// ends wants an exit status.
func (s *session) ends(want int) {
	s.d.t.Helper()
	defer s.cancel()
	_, _ = io.Copy(io.Discard, s.lines) // to its end, before Wait closes it
	if err := s.cmd.Wait(); s.cmd.ProcessState.ExitCode() != want {
		s.d.t.Errorf("%q: %v, want exit status %d", s.cmd.Args, err, want)
	}
}

// TestInput gives a container input, and its end.
func TestInput(t *testing.T) {
	d := begin(t)
	s := d.attach("run", "--rm", "--runtime", shim, image, "in", "sh", "-c", "echo ready; cat; exit 3")
	s.reads("ready")
	for i := range 3 {
		fmt.Fprintln(s.in, "line", i)
		s.reads(fmt.Sprint("line ", i))
	}
	s.in.Close()
	s.ends(3)
}

// TestTerminal gives a container a terminal, and another size of it.
func TestTerminal(t *testing.T) {
	d := begin(t)
	master, slave := terminal(t)
	cmd := d.client(t.Context(), "run", "--rm", "--tty", "--runtime", shim, image, "tty", "sh", "-c",
		"trap 'stty size; exit 5' WINCH; tty; while :; do sleep 0.05; done")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	lines := bufio.NewReader(master)
	if line, err := said(lines); strings.TrimSpace(line) != "/dev/pts/0" {
		t.Errorf("tty says %q, %v", line, err)
	}
	answer := make(chan string, 1)
	go func() {
		line, _ := said(lines) // its end is no answer either
		answer <- strings.TrimSpace(line)
	}()
	// ctr may not look at its own size yet.
	for col, got := uint16(77), ""; got == ""; col = 155 - col {
		if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: col}); err != nil {
			t.Fatal(err)
		}
		select {
		case got = <-answer:
			if got != "33 77" && got != "33 78" {
				t.Errorf("stty says %q", got)
			}
		case <-time.After(200 * time.Millisecond):
		}
	}
	if _ = cmd.Wait(); cmd.ProcessState.ExitCode() != 5 {
		t.Errorf("exit status %d", cmd.ProcessState.ExitCode())
	}
}

// said is the next line that is no warning of the client's.
func said(lines *bufio.Reader) (line string, err error) {
	for err == nil {
		if line, err = lines.ReadString('\n'); withoutWarnings(line) != "" {
			break
		}
	}
	return line, err
}

// terminal is a new one.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// TestExec executes further processes.
func TestExec(t *testing.T) {
	d := begin(t)
	d.detached("c", nil, "sleep", "1000")
	output := func(r result) bool { return r.out != "" }
	both := func(r result) bool { return r.out != "" && r.err != "" }
	if r := d.exec("a", both, "c", "sh", "-c", "echo $$; echo err >&2; exit 4"); r.status != 4 || r.out == "1\n" || r.err != "err\n" {
		t.Errorf("exec: %+v", r)
	}
	if r := d.exec("b", output, "--cwd", "/tmp", "c", "pwd"); r.status != 0 || r.out != "/tmp\n" {
		t.Errorf("exec --cwd: %+v", r)
	}
	if r := d.exec("n", func(result) bool { return true }, "c", "/no/such/program"); r.status == 0 || !strings.Contains(r.err, "E3003") {
		t.Errorf("exec of what does not exist: %+v", r)
	}
	s := d.attach("tasks", "exec", "--exec-id", "k", "c", "sh", "-c", "echo ready; exec sleep 1000")
	s.reads("ready")
	d.must("tasks", "kill", "--exec-id", "k", "--signal", "SIGTERM", "c")
	s.ends(143)
	if d.status("c") != "RUNNING" {
		t.Errorf("after a killed exec the container is %q", d.status("c"))
	}
	master, slave := terminal(t)
	cmd := d.client(t.Context(), "tasks", "exec", "--tty", "--exec-id", "t", "c", "tty")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	if line, err := said(bufio.NewReader(master)); !strings.HasPrefix(line, "/dev/pts/") {
		t.Errorf("tty of an exec: %q, %v", line, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	d.kill("c")
}

// TestLife pauses, measures, signals and deletes.
func TestLife(t *testing.T) {
	d := begin(t)
	d.detached("c", []string{"--memory-limit", "67108864"}, "sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.05; done")
	if st := d.status("c"); st != "RUNNING" {
		t.Errorf("it is %q", st)
	}
	if out := d.must("tasks", "ps", "c"); !strings.Contains(out, fmt.Sprint(d.pid("c"))) {
		t.Errorf("ps: %s", out)
	}
	metrics := d.must("tasks", "metrics", "c")
	for _, want := range []string{"67108864", "pids.current", "memory.usage"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics have no %s:\n%s", want, metrics)
		}
	}
	if r := d.ctr("tasks", "delete", "c"); r.status == 0 {
		t.Error("a running task was deleted")
	}
	d.must("tasks", "pause", "c")
	if st := d.status("c"); st != "PAUSED" {
		t.Errorf("it is %q, not paused", st)
	}
	d.must("tasks", "resume", "c")
	if st := d.status("c"); st != "RUNNING" {
		t.Errorf("it is %q, not running again", st)
	}
	d.must("tasks", "kill", "--signal", "SIGTERM", "c")
	d.await("its end", func() bool { return d.status("c") == "STOPPED" })
	if r := d.ctr("tasks", "kill", "c"); r.status == 0 || !strings.Contains(r.err, "process already finished") {
		t.Errorf("a signal to what has ended: %+v", r)
	}
	if r := d.ctr("tasks", "delete", "c"); !strings.Contains(r.err, "exit code 9") {
		t.Errorf("delete: %+v", r)
	}
	d.must("containers", "delete", "c")

	d.detached("p", nil, "sleep", "1000")
	d.must("tasks", "pause", "p")
	d.kill("p") // a paused one too
}

// TestEvents wants each event, in its order: of a container that ends by itself, and of one
// that the kernel kills for want of memory.
func TestEvents(t *testing.T) {
	d := begin(t)
	s := d.attach("events")
	seen := make(chan string, 100)
	go func() {
		defer close(seen)
		for {
			line, err := s.lines.ReadString('\n')
			if err != nil {
				return
			}
			for word := range strings.FieldsSeq(line) {
				if strings.HasPrefix(word, "/tasks/") || strings.HasPrefix(word, "/namespaces/") {
					seen <- word
				}
			}
		}
	}()
	// The client listens once it shows something.
	for listens := false; !listens; {
		d.must("namespaces", "label", d.namespace, fmt.Sprint("a=", time.Now().UnixNano()))
		select {
		case <-seen:
			listens = true
		case <-time.After(50 * time.Millisecond):
		}
	}
	d.run("e0", nil, "true")
	if r := d.run("e1", []string{"--memory-limit", "33554432"}, "tail", "/dev/zero"); r.status != 137 {
		t.Errorf("without memory: %+v", r)
	}
	var topics []string
	for deletes := 0; deletes < 2; {
		topic, ok := <-seen
		if !ok {
			t.Fatal("the client has ended")
		}
		if strings.HasPrefix(topic, "/tasks/") {
			topics = append(topics, strings.TrimPrefix(topic, "/tasks/"))
		}
		if topic == "/tasks/delete" {
			deletes++
		}
	}
	// One of whose processes another goes on after.
	d.detached("e2", []string{"--memory-limit", "33554432"}, "sh", "-c", "tail /dev/zero; sleep 1000")
	for topic := range seen {
		if topic == "/tasks/oom" {
			break
		}
		if topic == "/tasks/exit" {
			t.Fatal("it has ended before anybody was told")
		}
	}
	if got := d.status("e2"); got != "RUNNING" {
		t.Errorf("after a kill for want of memory the container is %s", got)
	}
	d.kill("e2")
	s.cancel()
	for range seen { // to its end
	}
	_ = s.cmd.Wait() // it was killed
	if got := strings.Join(topics, " "); got != "create start exit delete create start oom exit delete" {
		t.Errorf("events: %s", got)
	}
}

// TestRestart kills containerd under a running container.
func TestRestart(t *testing.T) {
	d := begin(t)
	s := d.attach("run", "--runtime", shim, image, "c", "sh", "-c",
		"trap 'echo signal' USR1; trap 'exit 6' TERM; echo ready; while :; do sleep 0.05; done")
	s.reads("ready")
	pid := d.pid("c")
	if err := s.cmd.Process.Kill(); err != nil { // so that it leaves its FIFOs
		t.Fatal(err)
	}
	s.ends(-1)
	d.stop()
	// Nobody reads now, and what is written then is no broken pipe.
	if err := unix.Kill(pid, unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	d.start()
	if st, now := d.status("c"), d.pid("c"); st != "RUNNING" || now != pid {
		t.Errorf("after a restart it is %q, process %d, not %d", st, now, pid)
	}
	if r := d.exec("x", func(r result) bool { return r.out != "" }, "c", "echo", "still"); r.out != "still\n" {
		t.Errorf("exec after a restart: %+v", r)
	}
	again := d.attach("tasks", "attach", "c")
	again.reads("signal")
	if err := unix.Kill(pid, unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	again.reads("signal")
	d.must("tasks", "kill", "--signal", "SIGTERM", "c")
	again.ends(6)
	d.ctr("tasks", "delete", "c") // attach may have done it
	d.must("containers", "delete", "c")
}

// TestServerKilled kills the shim: its container goes with it, and nothing is left.
func TestServerKilled(t *testing.T) {
	d := begin(t)
	d.detached("c", nil, "sh", "-c", "sleep 1000 & exec sleep 1001")
	pid, servers := d.pid("c"), d.servers()
	if len(servers) != 1 {
		t.Fatalf("servers: %v", servers)
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	if err := unix.Kill(servers[0], unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	poll := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(poll, int(patience/time.Millisecond))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n != 1 {
			t.Errorf("the container lives on: %v", err)
		}
		break
	}
	d.await("the task to be gone", func() bool { return d.status("c") != "RUNNING" })
	d.ctr("tasks", "delete", "c") // there may be none any more
	d.must("containers", "delete", "c")
}

// TestPod: the containers of a pod have one server, whose program nobody can write to.
func TestPod(t *testing.T) {
	d := begin(t)
	pod := []string{"--annotation", "io.kubernetes.cri.sandbox-id=pod"}
	d.detached("pause", pod, "sleep", "1000")
	d.detached("one", pod, "sleep", "1000")
	d.detached("alone", nil, "sleep", "1000")
	servers := d.servers()
	if len(servers) != 2 {
		t.Errorf("%d servers for a pod of two containers and one container", len(servers))
	}
	for _, pid := range servers {
		exe := fmt.Sprintf("/proc/%d/exe", pid)
		// A file that is being executed is busy for writers; for what would change the file
		// once nobody executes it, the mount is in the way.
		if err := os.Chmod(exe, 0o755); !errors.Is(err, unix.EROFS) {
			t.Errorf("chmod %s: %v, want EROFS", exe, err)
		}
	}
	for _, id := range []string{"one", "alone", "pause"} {
		d.kill(id)
	}
}

// TestStrangers: a process without a pid namespace of its own leaves nothing either.
func TestStrangers(t *testing.T) {
	d := begin(t)
	r := d.heard("h", []string{"--with-ns", "pid:/proc/" + fmt.Sprint(os.Getpid()) + "/ns/pid"}, "sh", "-c", "sleep 1000 & echo left")
	if r.status != 0 || r.out != "left\n" {
		t.Errorf("%+v", r)
	}
	logged := filepath.Join(d.dir, "output")
	d.detached("f", []string{"--log-uri", "file://" + logged}, "sh", "-c", "echo to a file; echo err >&2")
	d.await("its end", func() bool { return d.status("f") == "STOPPED" })
	d.must("tasks", "delete", "f")
	d.must("containers", "delete", "f")
	if text, err := os.ReadFile(logged); err != nil || string(text) != "to a file\nerr\n" && string(text) != "err\nto a file\n" {
		t.Errorf("%q, %v", text, err)
	}
}
