package main

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/api/wire"
	"github.com/capsule-run/capsule/supervisor/client"
)

// ended waits for an execution and compares how it ended.
func (h *house) ended(c *client.Client, id string, code int, stdout string) {
	h.Helper()
	r, err := c.Wait(h.ctx, id)
	if err != nil {
		h.Fatal(err)
	}
	if r.ExitCode == nil || *r.ExitCode != code || r.Stdout == nil || *r.Stdout != stdout {
		h.Errorf("%s", r.Encode(true))
	}
}

// feed gives an execution its stdin.
func (h *house) feed(c *client.Client, id, stdin string) {
	h.Helper()
	if err := c.Attach(h.ctx, id, &api.AttachOptions{Stdin: strings.NewReader(stdin), Stdout: &said{}}); err != nil {
		h.Fatal(err)
	}
}

// over tells whether an execution has its result and its shim, which holds the
// lock of the directory, is gone.
func (h *house) over(id string) bool {
	dir, err := os.Open(filepath.Join(h.state, "executions", id))
	if err != nil {
		return false
	}
	defer dir.Close()
	free := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
	return free && exists(filepath.Join(dir.Name(), "result.json"))
}

func TestKilledDaemonLosesNothing(t *testing.T) {
	h := newHouse(t)
	audit := filepath.Join(h.dir, "audit")
	first := h.up("--audit-log", audit)
	c := h.dial()
	lives := h.execute(c, "read x; echo got $x; exit 7", true)
	gate := t.TempDir()
	e, err := c.Start(h.ctx, &api.StartRequest{Request: []byte(`{"command":["sh","-c","until [ -e \"$0/open\" ]; do sleep 0.01; done; echo alone; exit 5",` +
		strconv.Quote(gate) + `],"timeout_ms":300000,"isolation":{"readonly_paths":[` + strconv.Quote(gate) + `]}}`)})
	if err != nil {
		t.Fatal(err)
	}
	ends := e.ID
	h.ids = append(h.ids, ends)
	h.eventually("both run", func() bool {
		page, err := c.List(h.ctx, &api.Filter{Statuses: []string{api.StatusRunning}})
		return err == nil && len(page.Executions) == 2
	})
	first.signal(syscall.SIGKILL)
	if code := first.exit(); code != -1 {
		t.Errorf("exit code %d", code)
	}
	if err := os.WriteFile(filepath.Join(gate, "open"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	h.eventually("it ends with nobody watching", func() bool { return h.over(ends) })
	second := h.up("--audit-log", audit)
	h.eventually("recovery is told", func() bool {
		return strings.Contains(second.said.String(), "live=1 queued=0 collected=1 lost=0")
	})
	c = h.dial()
	h.ended(c, ends, 5, "alone\n")
	h.feed(c, lives, "hello\n")
	h.ended(c, lives, 7, "got hello\n")
	second.signal(syscall.SIGTERM)
	if code := second.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	count := map[string]int{}
	for _, l := range linesOf(t, audit) {
		if l.UID == nil || int(*l.UID) != os.Geteuid() {
			t.Errorf("whose? %+v", l)
		}
		count[l.Type+" "+l.ExecutionID]++
	}
	for _, id := range []string{lives, ends} {
		if count["admission "+id] != 1 || count["end "+id] != 1 {
			t.Errorf("audit: %v", count)
		}
	}
}

func TestStopLeavesExecutionsAndNoSocket(t *testing.T) {
	h := newHouse(t)
	p := h.up()
	id := h.execute(h.dial(), "read x; exit 3", true)
	p.signal(syscall.SIGINT)
	p.notice("STOPPING=1")
	if code := p.exit(); code != 0 || exists(filepath.Join(h.state, "capsuled.sock")) {
		t.Errorf("exit code %d, or the socket is left", code)
	}
	p = h.up()
	c := h.dial()
	h.feed(c, id, "\n")
	h.ended(c, id, 3, "")
	p.signal(syscall.SIGTERM)
	p.exit()
}

func TestOneDaemonForAStateDirectory(t *testing.T) {
	h := newHouse(t)
	p := h.up()
	second := h.launch(nil, "--address", filepath.Join(h.dir, "other.sock"))
	if code := second.exit(); code != exitFailed || !strings.Contains(second.said.String(), "pid "+strconv.Itoa(p.cmd.Process.Pid)) {
		t.Errorf("exit code %d: %s", code, second.said)
	}
	h.dial() // the first is as before
	p.signal(syscall.SIGTERM)
	p.exit()
}

func TestSocketActivation(t *testing.T) {
	h := newHouse(t)
	path := filepath.Join(h.dir, "activated.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := h.launch(func(c *exec.Cmd) {
		c.ExtraFiles = []*os.File{f}
		c.Env = append(c.Env, "LISTEN_FDS=1")
		// The shell's pid becomes the daemon's.
		c.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, os.Args[0]}, c.Args[1:]...)
		c.Path = "/bin/sh"
	})
	p.notice("READY=1")
	conn, err := dial(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	peer, err := wire.Peer(conn)
	conn.Close()
	if err != nil || peer.Pid != p.cmd.Process.Pid {
		t.Errorf("the socket tells of %+v, %v; the daemon is %d", peer, err, p.cmd.Process.Pid)
	}
	c, err := client.Dial(h.ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if info, err := c.Info(h.ctx); err != nil || info.StateDir != h.state || info.Pid != p.cmd.Process.Pid {
		t.Errorf("%+v, %v", info, err)
	}
	if exists(filepath.Join(h.state, "capsuled.sock")) {
		t.Error("it made a socket of its own as well")
	}
	// The address tells who is to be drained.
	if code := h.launch(nil, "--drain", "--address", path).exit(); code != 0 {
		t.Errorf("drain: exit code %d", code)
	}
	if code := p.exit(); code != 0 || !exists(path) {
		t.Errorf("exit code %d; systemd's socket has to stay", code)
	}
}

func TestDrain(t *testing.T) {
	h := newHouse(t)
	p := h.up()
	c := h.dial()
	id := h.execute(c, "read x; exit 4", true)
	drain := h.launch(nil, "--drain")
	h.eventually("it drains", func() bool {
		status, _, err := c.Health(h.ctx)
		return err == nil && status == healthDraining
	})
	_, err := c.Start(h.ctx, &api.StartRequest{Request: []byte(`{"command":["true"]}`)})
	if !errors.Is(err, &fault.Fault{Code: fault.TooManyExecutions}) {
		t.Errorf("a start while it drains: %v", err)
	}
	h.feed(c, id, "\n")
	if code := p.exit(); code != 0 {
		t.Errorf("the daemon: exit code %d", code)
	}
	if code := drain.exit(); code != 0 {
		t.Errorf("--drain: exit code %d", code)
	}
	p = h.up()
	h.ended(h.dial(), id, 4, "")
	p.signal(syscall.SIGTERM)
	p.exit()
	nobody := h.launch(nil, "--drain")
	if code := nobody.exit(); code != exitDrain || !strings.Contains(nobody.said.String(), "E6004") || !strings.Contains(nobody.said.String(), "hint:") {
		t.Errorf("--drain of nothing: exit code %d", code)
	}
}

func TestHangupReopensTheAuditLog(t *testing.T) {
	h := newHouse(t)
	audit := filepath.Join(h.dir, "audit")
	p := h.up("--audit-log", audit)
	c := h.dial()
	h.ended(c, h.execute(c, "exit 0", false), 0, "")
	h.eventually("the end is written", func() bool { return len(linesOf(t, audit)) == 2 })
	if err := os.Rename(audit, audit+".1"); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGHUP)
	p.notice("RELOADING=1")
	p.notice("READY=1")
	id := h.execute(c, "exit 1", false)
	h.ended(c, id, 1, "")
	p.signal(syscall.SIGTERM)
	p.exit()
	lines := linesOf(t, audit)
	if len(lines) < 2 || lines[0].ExecutionID != id || lines[0].Type != auditAdmission {
		t.Errorf("%+v", lines)
	}
}

func TestWatchdogAndMetrics(t *testing.T) {
	h := newHouse(t)
	path := filepath.Join(h.dir, "metrics.sock")
	p := h.launch(func(c *exec.Cmd) { c.Env = append(c.Env, "WATCHDOG_USEC="+strconv.Itoa(int(patient(300_000)))) }, "--metrics", "unix:"+path)
	p.notice("READY=1")
	p.notice("WATCHDOG=1")
	p.notice("WATCHDOG=1")
	c := h.dial()
	h.ended(c, h.execute(c, "exit 0", false), 0, "")
	if _, err := c.Start(h.ctx, &api.StartRequest{Request: []byte(`{"command":[]}`)}); err == nil {
		t.Error("a request without a command was accepted")
	}
	h.eventually("the metrics tell", func() bool {
		text := h.scrape(path)
		return strings.Contains(text, `capsule_executions_ended_total{reason="exited",status="success"} 1`+"\n") &&
			strings.Contains(text, `capsule_executions_refused_total{code="E1002"} 1`+"\n") &&
			strings.Contains(text, "capsule_startup_seconds_count 1\n") && strings.Contains(text, "capsule_connections 2\n")
	})
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 || exists(path) {
		t.Errorf("exit code %d, or the socket is left", code)
	}
}
