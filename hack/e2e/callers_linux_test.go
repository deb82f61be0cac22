package e2e

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec"
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

// running starts a command with -o json and waits until it has written a line
// into a FIFO that both share, and until its shim offers its socket. The command finds it as "$READY".
func (c *capsule) running(args ...string) (cmd *exec.Cmd, stdout, stderr *bytes.Buffer) {
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
	defer ready.Close()
	cmd = c.command(append([]string{"-o", "json", "--writable", dir, "-e", "READY=" + fifo}, args...)...)
	stdout, stderr = new(bytes.Buffer), new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Start(); err != nil {
		c.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		// WNOWAIT: the status stays for cmd.Wait.
		_ = unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil) // it ended, or there is nothing to wait for
		close(ended)
		_ = ready.SetReadDeadline(unixEpoch) // wakes the read below
	}()
	if _, err := bufio.NewReader(ready).ReadString('\n'); err != nil {
		<-ended
		_ = cmd.Wait() // for the streams
		c.Fatalf("the command did not get ready: %v\n%s%s", err, stdout.String(), stderr.String())
	}
	// The command can be quicker than the news of its start.
	socket := filepath.Join(stateDir(), "executions", c.ids[len(c.ids)-1], "shim.sock")
	c.eventually("the shim knows that the command runs", func() bool { return exists(socket) })
	return cmd, stdout, stderr
}

// ended waits for a command that was running.
func (c *capsule) ended(cmd *exec.Cmd, stdout, stderr *bytes.Buffer) outcome {
	c.Helper()
	_ = cmd.Wait() // the status is compared below
	o := outcome{code: cmd.ProcessState.ExitCode(), out: stdout.String(), stderr: stderr.String()}
	o.Response = c.response(o)
	return o
}

// TestSignalsOfTheCaller wants signals to be passed on, and the verdict to be
// about what they did.
func TestSignalsOfTheCaller(t *testing.T) {
	const wait = `echo >"$READY"; while :; do sleep 0.01; done`
	killed := func(payload, caller syscall.Signal) want {
		return want{spec.StatusKilled, spec.ReasonKilledByCaller, "E3007", -1, int(payload), 128 + int(caller)}
	}
	for _, v := range []struct {
		name    string
		script  string
		signals []syscall.Signal
		want    want
	}{
		{"SIGTERM", wait, []syscall.Signal{unix.SIGTERM}, killed(unix.SIGTERM, unix.SIGTERM)},
		{"SIGINT", wait, []syscall.Signal{unix.SIGINT}, killed(unix.SIGINT, unix.SIGINT)},
		{"SIGHUP", wait, []syscall.Signal{unix.SIGHUP}, killed(unix.SIGHUP, unix.SIGHUP)},
		{"handled", `trap 'exit 5' TERM; ` + wait, []syscall.Signal{unix.SIGTERM}, exited(5)},
		{"ignored, and again", `trap "" TERM; ` + wait, []syscall.Signal{unix.SIGTERM, unix.SIGTERM}, killed(unix.SIGKILL, unix.SIGTERM)},
	} {
		t.Run(v.name, func(t *testing.T) {
			c := begin(t)
			cmd, stdout, stderr := c.running("--", "sh", "-c", v.script)
			for i, s := range v.signals {
				if i > 0 {
					c.waitDelivered(cmd.Process.Pid)
				}
				if err := cmd.Process.Signal(s); err != nil {
					t.Error(err)
				}
			}
			c.ended(cmd, stdout, stderr).is(t, v.want)
		})
	}
}

// waitDelivered waits until a signal that was sent is pending no more, so that
// a second one of the same number is not merged with it.
func (c *capsule) waitDelivered(pid int) {
	c.Helper()
	c.eventually("the first signal is taken", func() bool {
		text, err := os.ReadFile("/proc/" + decimal(pid) + "/status")
		return err == nil && strings.Contains(string(text), "\nShdPnd:\t0000000000000000\n")
	})
}

// TestCallerKilled kills capsulectl: its execution ends with it.
func TestCallerKilled(t *testing.T) {
	c := begin(t)
	cmd, _, _ := c.running("--", "sh", "-c", `trap "" TERM HUP INT; (setsid sleep 1000 &); echo >"$READY"; sleep 1000`)
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
