package main

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/client"
)

// asDaemon makes the test binary be capsuled.
const asDaemon = "CAPSULED_TEST_MAIN"

// TestMain makes this process the parent of every orphan, so that it sees what
// outlives its executions.
func TestMain(m *testing.M) {
	if os.Getenv(asDaemon) != "" {
		os.Exit(start(os.Args[1:]))
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// patient scales a time to the machine.
func patient(d time.Duration) time.Duration {
	for _, name := range []string{"CAPSULE_TEST_SCALE", "CAPSULE_TEST_SLOW"} {
		if n, err := strconv.Atoi(os.Getenv(name)); err == nil && n > 0 {
			return d * time.Duration(n)
		}
	}
	if os.Getenv("VMTEST") != "" {
		return 10 * d
	}
	return d
}

// house is a state directory with the daemons of a test.
type house struct {
	*testing.T
	ctx   context.Context
	dir   string
	state string
	ids   []string // of executions
}

func newHouse(t *testing.T) *house {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patient(time.Minute))
	dir := t.TempDir()
	h := &house{T: t, ctx: ctx, dir: dir, state: filepath.Join(dir, "state")}
	t.Cleanup(cancel)
	t.Cleanup(h.clean)
	return h
}

// clean checks that nothing is left of the test's executions.
func (h *house) clean() {
	if h.Failed() {
		return // the first failure says more
	}
	// What ended when the last one was stopped, the next one collects.
	last := h.up()
	gone := func(pattern string) func() bool {
		return func() bool {
			left, err := filepath.Glob(h.state + pattern)
			return err == nil && len(left) == 0
		}
	}
	// Prepared sandboxes have directories too, until the daemon ends.
	h.eventually("their records are gone", gone("/executions/*/execution.json"))
	// One that is interrupted by the daemon's end is left for the next daemon.
	h.eventually("no removal is under way", gone("/executions/gone-*"))
	last.signal(syscall.SIGTERM)
	if code := last.exit(); code != 0 {
		h.Errorf("exit code %d", code)
	}
	h.eventually("all directories are gone", gone("/executions/*"))
	h.eventually("all processes are gone", func() bool {
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if err == unix.ECHILD {
				return true
			}
			if err != nil || pid == 0 {
				return false
			}
		}
	})
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), h.state) {
		h.Errorf("a mount is left, or %v", err)
	}
	h.eventually("their cgroups are gone", func() bool {
		found := false
		_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				found = found || slices.ContainsFunc(h.ids, func(id string) bool { return strings.Contains(e.Name(), id) })
			}
			return nil // groups of others come and go
		})
		return !found
	})
}

// eventually waits for what tells nobody when it happens.
func (h *house) eventually(what string, f func() bool) {
	h.Helper()
	for deadline := time.Now().Add(patient(15 * time.Second)); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			h.Errorf("not in time: %s", what)
			return
		}
	}
}

// shim is the program beside which executions can run.
func (h *house) shim() string {
	h.Helper()
	dir := os.Getenv("CAPSULE_BIN")
	if dir == "" {
		dir = "../../bin"
	}
	path, err := filepath.Abs(filepath.Join(dir, "capsule-shim"))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		h.Fatal("run make build first, or set CAPSULE_BIN:", err)
	}
	return path
}

// process is a capsuled.
type process struct {
	*house
	cmd     *exec.Cmd
	said    *said
	notices *net.UnixConn
	ended   bool
}

// said is what a process prints.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// launch starts a capsuled and waits for nothing. prepare may change the command.
func (h *house) launch(prepare func(*exec.Cmd), args ...string) *process {
	h.Helper()
	path := filepath.Join(h.dir, "notify-"+strconv.Itoa(int(time.Now().UnixNano())))
	notices, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { notices.Close() })
	p := &process{house: h, cmd: exec.Command(os.Args[0], args...), said: &said{}, notices: notices}
	p.cmd.Stdout, p.cmd.Stderr = p.said, p.said
	p.cmd.Env = append(os.Environ(), asDaemon+"=1", "CAPSULE_STATE="+h.state, variableAddress+"=", "CAPSULE_SHIM="+h.shim(), "NOTIFY_SOCKET="+path)
	if prepare != nil {
		prepare(p.cmd)
	}
	if err := p.cmd.Start(); err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() {
		if !p.ended {
			_ = p.cmd.Process.Kill() // of a test that failed
			_ = p.cmd.Wait()
		}
		if h.Failed() {
			h.Logf("capsuled %q: %s", args, p.said)
		}
	})
	return p
}

// up starts a capsuled that serves.
func (h *house) up(args ...string) *process {
	h.Helper()
	p := h.launch(nil, args...)
	p.notice("READY=1")
	return p
}

// notice waits for a notification.
func (p *process) notice(want string) {
	p.Helper()
	buffer := make([]byte, 4096)
	deadline, _ := p.ctx.Deadline()
	if err := p.notices.SetReadDeadline(deadline); err != nil {
		p.Fatal(err)
	}
	for {
		n, err := p.notices.Read(buffer)
		if err != nil {
			p.Fatalf("no notification %s: %v", want, err)
		}
		if slices.Contains(strings.Split(string(buffer[:n]), "\n"), want) {
			return
		}
	}
}

// signal sends a signal.
func (p *process) signal(s syscall.Signal) {
	p.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.Fatal(err)
	}
}

// exit waits for the end and returns the exit code; -1: by a signal.
func (p *process) exit() int {
	p.Helper()
	_ = p.cmd.Wait() // ProcessState tells
	p.ended = true
	return p.cmd.ProcessState.ExitCode()
}

// dial connects to the API.
func (h *house) dial() *client.Client {
	h.Helper()
	c, err := client.Dial(h.ctx, filepath.Join(h.state, "capsuled.sock"))
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { c.Close() })
	return c
}

// execute starts an execution of sh.
func (h *house) execute(c *client.Client, script string, stdin bool) string {
	h.Helper()
	e, err := c.Start(h.ctx, &api.StartRequest{Request: []byte(`{"command":["sh","-c",` + strconv.Quote(script) + `],"timeout_ms":300000}`), StreamStdin: stdin})
	if err != nil {
		h.Fatal(err)
	}
	h.ids = append(h.ids, e.ID)
	return e.ID
}

// scrape reads the metrics.
func (h *house) scrape(path string) string {
	h.Helper()
	web := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, path) }}}
	r, err := web.Get("http://capsuled/metrics")
	if err != nil {
		h.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		h.Fatal(err)
	}
	return string(text)
}
