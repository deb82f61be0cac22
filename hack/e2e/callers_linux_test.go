package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/supervisor/admission"
	"github.com/capsule-run/capsule/supervisor/api"
)

// TestLiveStreams wants to see a line before the command has ended, and a
// command to see an answer before its input has ended.
func TestLiveStreams(t *testing.T) {
	c := begin(t)
	cmd := c.command("-i", "--", "sh", "-c", `echo first; read x; echo "got $x" >&2; read y; echo last; exit 3`)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	errs, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines, complaints := bufio.NewReader(out), bufio.NewReader(errs)
	expect := func(from *bufio.Reader, want string) {
		t.Helper()
		if line, err := from.ReadString('\n'); line != want {
			t.Errorf("read %q (%v), want %q", line, err, want)
		}
	}
	say := func(text string) {
		t.Helper()
		if _, err := io.WriteString(in, text); err != nil {
			t.Error(err)
		}
	}
	expect(lines, "first\n")
	say("one\n")
	expect(complaints, "got one\n")
	say("two\n")
	expect(lines, "last\n")
	in.Close()
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 3 {
		t.Error(err)
	}
}

// live is a call of capsulectl with -o json that runs.
type live struct {
	*exec.Cmd
	stdout, stderr bytes.Buffer
	lines          *bufio.Reader // what the command writes into "$READY"
}

// running starts a command that finds the path of a FIFO in "$READY", waits for
// a first line in it, and until the shim offers its socket.
func (c *capsule) running(args ...string) *live {
	c.Helper()
	dir := c.directory()
	fifo := filepath.Join(dir, "ready")
	if err := unix.Mkfifo(fifo, 0o666); err != nil {
		c.Fatal(err)
	}
	// Without a writer an open for reading alone would wait for ever, also
	// when the command cannot start.
	ready, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { ready.Close() })
	l := &live{Cmd: c.command(append([]string{"-o", "json", "--writable", dir, "-e", "READY=" + fifo}, args...)...), lines: bufio.NewReader(ready)}
	l.Stdout, l.Stderr = &l.stdout, &l.stderr
	if err := l.Start(); err != nil {
		c.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		// WNOWAIT: the status stays for Wait.
		_ = unix.Waitid(unix.P_PID, l.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil) // it ended, or there is nothing to wait for
		close(ended)
		_ = ready.SetReadDeadline(unixEpoch) // wakes a read
	}()
	if _, err := l.lines.ReadString('\n'); err != nil {
		<-ended
		_ = l.Wait() // for the streams
		c.Fatalf("the command did not get ready: %v\n%s%s", err, l.stdout.String(), l.stderr.String())
	}
	// The command can be quicker than the news of its start.
	socket := filepath.Join(stateDir(), "executions", c.ids[len(c.ids)-1], "shim.sock")
	c.eventually("the shim knows that the command runs", func() bool { return exists(socket) })
	return l
}

// ended waits for a command that was running.
func (c *capsule) ended(l *live) outcome {
	c.Helper()
	_ = l.Wait() // the status is compared below
	o := outcome{code: l.ProcessState.ExitCode(), out: l.stdout.String(), stderr: l.stderr.String()}
	o.Response = c.response(o)
	return o
}

// TestSignalsOfTheCaller wants signals to be passed on, and the verdict to be
// about what they did. A second one ends what does not end.
func TestSignalsOfTheCaller(t *testing.T) {
	const wait = `echo >"$READY"; while :; do sleep 0.01; done`
	killed := func(payload, caller syscall.Signal) want {
		return want{spec.StatusKilled, spec.ReasonKilledByCaller, "E3007", -1, int(payload), 128 + int(caller)}
	}
	for _, v := range []struct {
		name   string
		script string
		signal syscall.Signal
		again  bool // once the command has told that it got the first
		want   want
	}{
		{"SIGTERM", wait, unix.SIGTERM, false, killed(unix.SIGTERM, unix.SIGTERM)},
		{"SIGINT", wait, unix.SIGINT, false, killed(unix.SIGINT, unix.SIGINT)},
		{"SIGHUP", wait, unix.SIGHUP, false, killed(unix.SIGHUP, unix.SIGHUP)},
		{"handled", `trap 'exit 5' TERM; ` + wait, unix.SIGTERM, false, exited(5)},
		{"not obeyed, and again", `trap 'echo >"$READY"' TERM; ` + wait, unix.SIGTERM, true, killed(unix.SIGKILL, unix.SIGTERM)},
	} {
		t.Run(v.name, func(t *testing.T) {
			c := begin(t)
			l := c.running("--", "sh", "-c", v.script)
			if err := l.Process.Signal(v.signal); err != nil {
				t.Error(err)
			}
			if v.again {
				if _, err := l.lines.ReadString('\n'); err != nil {
					t.Error(err)
				}
				if err := l.Process.Signal(v.signal); err != nil {
					t.Error(err)
				}
			}
			c.ended(l).is(t, v.want)
		})
	}
}

// TestCallerKilled kills capsulectl: its execution ends with it.
func TestCallerKilled(t *testing.T) {
	c := begin(t)
	cmd := c.running("--", "sh", "-c", `trap "" TERM HUP INT; (setsid sleep 1000 &); echo >"$READY"; sleep 1000`)
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // it was killed
}

// TestBrokenPipe wants a command to end that nobody reads any more.
func TestBrokenPipe(t *testing.T) {
	c := begin(t)
	cmd := c.command("--", "yes")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, out, 100<<10); err != nil {
		t.Error(err)
	}
	out.Close()
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 128+int(unix.SIGPIPE) {
		t.Errorf("%v", err)
	}
}

type writerFunc func([]byte) (int, error)

// Write implements io.Writer.
func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestCallerThatLeft wants a command to go on when the caller that held its output
// wants no more, though the daemon stays connected.
func TestCallerThatLeft(t *testing.T) {
	h := openHouse(t)
	s, _ := h.daemon(admission.Limits{})
	defer func() {
		if err := errors.Join(s.Drain(h.ctx), s.Close()); err != nil {
			t.Error(err)
		}
	}()
	as := s.As(uint32(os.Geteuid()))
	const lines = 2_000_000
	length := int64(0) // of what seq prints
	for digits, from := 1, 1; from <= lines; digits, from = digits+1, from*10 {
		length += int64(digits+1) * int64(min(lines+1, from*10)-from)
	}
	id := h.start(as, &api.StartRequest{}, "seq", "1", fmt.Sprint(lines)).ID
	ctx, leave := context.WithCancel(h.ctx)
	got := int64(0)
	err := as.Attach(ctx, id, &api.AttachOptions{Hold: true, Stdout: writerFunc(func(p []byte) (int, error) {
		if got += int64(len(p)); got > 2<<20 {
			leave()
		}
		return len(p), nil
	})})
	if err == nil || got >= length {
		t.Errorf("%d bytes of %d, %v", got, length, err)
	}
	if r := h.wait(as, id); r.Status != spec.StatusSuccess || r.Output.Stdout.BytesTotal != length {
		t.Errorf("response %s", r.Encode(true))
	}
}

// TestHeldOutput wants nothing of the output lost that is written before its follower is
// there, and a command whose follower never comes to go on.
func TestHeldOutput(t *testing.T) {
	h := openHouse(t)
	s, _ := h.daemon(admission.Limits{})
	defer func() {
		if err := errors.Join(s.Drain(h.ctx), s.Close()); err != nil {
			t.Error(err)
		}
	}()
	as := s.As(uint32(os.Geteuid()))
	const length = 20 << 20 // more than is kept, and than pipes hold
	start := func() string {
		return h.start(as, &api.StartRequest{HoldOutput: true}, "head", "-c", fmt.Sprint(length), "/dev/zero").ID
	}
	id, alone := start(), start()
	soon, cancel := context.WithTimeout(h.ctx, time.Second)
	defer cancel()
	if r, err := as.Wait(soon, id); err == nil {
		t.Fatalf("it has ended before anybody was there: %s", r.Encode(true))
	}
	got := 0
	err := as.Attach(h.ctx, id, &api.AttachOptions{Hold: true, Stdout: writerFunc(func(p []byte) (int, error) {
		got += len(p)
		return len(p), nil
	})})
	if r := h.wait(as, id); err != nil || got != length || r.Status != spec.StatusSuccess {
		t.Errorf("%d bytes of %d, %v, %s", got, length, err, r.Encode(true))
	}
	if r := h.wait(as, alone); r.Status != spec.StatusSuccess || r.Output.Stdout.BytesTotal != length {
		t.Errorf("without anybody: %s", r.Encode(true))
	}
}
