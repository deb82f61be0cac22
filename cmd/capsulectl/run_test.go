package main

import (
	"context"
	"encoding/json"
	"io"
	"strings"
	"syscall"
	"testing"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor"
)

// document checks that text is exactly one JSON document and decodes it.
func document(t *testing.T, text string) *spec.Response {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	var r spec.Response
	if err := d.Decode(&r); err != nil {
		t.Fatalf("stdout is no JSON document: %v: %q", err, text)
	}
	if _, err := d.Token(); err != io.EOF {
		t.Fatalf("something follows the document: %q", text)
	}
	if !isUUID(r.ExecutionID) && r.Status == spec.StatusError {
		t.Errorf("the id %q is no UUID", r.ExecutionID)
	}
	return &r
}

func TestEveryRefusalIsOneDocument(t *testing.T) {
	cases := []struct {
		name, args, stdin string
		code              fault.Code
	}{
		{"not JSON", "--json", "hello", fault.JSONSyntax},
		{"empty", "--json", "", fault.JSONSyntax},
		{"two documents", "--json", `{"command":["ls"]}{}`, fault.JSONSyntax},
		{"unknown key", "--json", `{"command":["ls"],"comand":1}`, fault.UnknownField},
		{"no command", "--json", `{}`, fault.MissingField},
		{"out of range", "--json", `{"command":["ls"],"timeout_ms":0}`, fault.OutOfRange},
		{"too long", "--json", strings.Repeat(" ", spec.MaxDocumentBytes+1), fault.OutOfRange},
		{"unknown flag before", "--bogus --json", "", fault.InvalidValue},
		{"unknown flag after", "--json --bogus", "", fault.InvalidValue},
		{"single dash", "-json", "", fault.InvalidValue},
		{"flag of the request", "--json -t 5s", "", fault.InvalidValue},
		{"command and request", "--json ls", "", fault.InvalidValue},
		{"stdin twice", "--json -i", "", fault.InvalidValue},
		{"unknown profile", "--json -p nosuch", `{"command":["ls"]}`, fault.UnknownProfile},
		{"unreachable", "--json --address /nobody", `{"command":["ls"]}`, fault.Unreachable},
		{"unreachable, detached", "--json -d --address unix:///nobody", `{"command":["ls"]}`, fault.Unreachable},
		{"no command with flags", "-o json", "", fault.MissingField},
		{"flag value with output json", "-t x -o json ls", "", fault.InvalidValue},
		{"output json after the error", "--bogus x --output=json ls", "", fault.InvalidValue},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(c.stdin)
			code := b.main(append([]string{"run"}, strings.Fields(c.args)...))
			r := document(t, b.out.String())
			if code != spec.ExitRefused || r.Status != spec.StatusError || r.Termination.Reason != spec.ReasonRefused {
				t.Errorf("exit %d, status %s, reason %s", code, r.Status, r.Termination.Reason)
			}
			if r.Error == nil || r.Error.Code != string(c.code) {
				t.Errorf("error %+v, want %s", r.Error, c.code)
			}
			if b.engine.request != nil {
				t.Error("something was started")
			}
			if b.errOut.String() != "" {
				t.Errorf("stderr: %q", b.errOut.String())
			}
		})
	}
}

func TestUnknownVerbWithJSON(t *testing.T) {
	b := newBench("")
	if code := b.main([]string{"rnu", "--json"}); code != spec.ExitRefused {
		t.Errorf("exit %d", code)
	}
	if r := document(t, b.out.String()); r.Error.Hint != "Did you mean run?" {
		t.Errorf("error %+v", r.Error)
	}
}

func TestRequestOfStdin(t *testing.T) {
	b := newBench(`{"command":["ls"],"timeout_ms":77}`)
	const id = "00000000-0000-4000-8000-000000000000"
	if code := b.run([]string{"--json", "-p", "high-security", "--execution-id", id}); code != 0 {
		t.Fatalf("exit %d: %s", code, b.out.String())
	}
	if r := b.engine.request; r.TimeoutMS != 77 || r.Resources.MaxPids != 5 || b.engine.id != id {
		t.Errorf("request %s, id %s", r.Encode(), b.engine.id)
	}
	document(t, b.out.String())
}

func TestPanicIsReported(t *testing.T) {
	b := newBench(`{"command":["ls"]}`)
	b.engine.panics = true
	if code := b.run([]string{"--json"}); code != spec.ExitRefused {
		t.Errorf("exit %d", code)
	}
	if r := document(t, b.out.String()); !strings.Contains(r.Error.Message, "a defect") {
		t.Errorf("error %+v", r.Error)
	}
	if !strings.Contains(b.errOut.String(), "goroutine") {
		t.Error("no trace on stderr")
	}
}

func TestStartFault(t *testing.T) {
	for _, c := range []struct {
		err  *fault.Fault
		code int
	}{
		{fault.New(fault.Cgroup, "mkdir", "read-only"), spec.ExitRefused},
		{&fault.Fault{Code: fault.CommandNotFound, Op: "execve", Errno: syscall.ENOENT}, spec.ExitNotFound},
		{&fault.Fault{Code: fault.CommandNotFound, Op: "execve", Errno: syscall.EACCES}, spec.ExitNotExecutable},
		{&fault.Fault{Code: fault.CommandNotFound, Op: "execve", Details: map[string]any{"errno": "ENOEXEC"}}, spec.ExitNotExecutable},
	} {
		b := newBench("")
		b.engine.startErr = c.err
		if code := b.run([]string{"ls"}); code != c.code {
			t.Errorf("%v: exit %d, want %d", c.err, code, c.code)
		}
		b = newBench(`{"command":["ls"]}`)
		b.engine.startErr = c.err
		if code := b.run([]string{"--json"}); code != c.code {
			t.Errorf("%v: exit %d, want %d", c.err, code, c.code)
		}
		document(t, b.out.String())
	}
}

func TestEnvelopeMode(t *testing.T) {
	b := newBench(`{"command":["ls"]}`)
	b.engine.run = func(context.Context, supervisor.Streams, <-chan syscall.Signal) *spec.Response { return exited(7) }
	if code := b.run([]string{"--json", "--exit-code-mode=envelope"}); code != 0 {
		t.Errorf("exit %d", code)
	}
	b = newBench("hello")
	if code := b.run([]string{"--json", "--exit-code-mode", "envelope"}); code != 0 {
		t.Errorf("refusal: exit %d", code)
	}
	document(t, b.out.String())
}

func TestHumanStreams(t *testing.T) {
	b := newBench("from the caller")
	b.engine.run = func(_ context.Context, st supervisor.Streams, _ <-chan syscall.Signal) *spec.Response {
		data, _ := io.ReadAll(st.Stdin)
		io.WriteString(st.Stdout, "out:"+string(data))
		io.WriteString(st.Stderr, "err")
		return exited(3)
	}
	if code := b.run([]string{"-i", "cat"}); code != 3 {
		t.Errorf("exit %d", code)
	}
	if b.out.String() != "out:from the caller" || b.errOut.String() != "err" {
		t.Errorf("stdout %q, stderr %q", b.out.String(), b.errOut.String())
	}
}

func TestStreamsAreOptional(t *testing.T) {
	for _, args := range []string{"ls", "-o json ls"} {
		b := newBench("")
		b.engine.run = func(_ context.Context, st supervisor.Streams, _ <-chan syscall.Signal) *spec.Response {
			if st.Stdin != nil {
				t.Errorf("%s: stdin is passed on unasked", args)
			}
			if live := st.Stdout != nil; live != (args == "ls") {
				t.Errorf("%s: stdout live: %v", args, live)
			}
			return exited(0)
		}
		b.run(strings.Fields(args))
	}
}

func TestBrokenStdout(t *testing.T) {
	writes := func(ctx context.Context, st supervisor.Streams, _ <-chan syscall.Signal) *spec.Response {
		if n, err := io.WriteString(st.Stdout, "x"); n != 1 || err != nil {
			t.Errorf("the supervisor sees the failure: %d, %v", n, err)
		}
		<-ctx.Done()
		return signalled(spec.StatusKilled, spec.ReasonKilledByCaller, 9)
	}
	for _, c := range []struct {
		err   error
		code  int
		lines string
	}{
		{syscall.EPIPE, spec.ExitSignalBase + int(syscall.SIGPIPE), ""},
		{syscall.ENOSPC, spec.ExitRefused, "capsule: E6001: pass the output on: no space left on device"},
	} {
		b := newBench("")
		b.stdout = brokenWriter{c.err}
		b.engine.run = writes
		if code := b.run([]string{"yes"}); code != c.code || !strings.HasPrefix(b.errOut.String(), c.lines) || (c.lines == "") != (b.errOut.String() == "") {
			t.Errorf("%v: exit %d, %q", c.err, code, b.errOut.String())
		}
		b = newBench(`{"command":["ls"]}`)
		b.stdout = brokenWriter{c.err}
		if code := b.run([]string{"--json"}); code != spec.ExitRefused || (c.lines == "") != (b.errOut.String() == "") {
			t.Errorf("%v: --json: exit %d, %q", c.err, code, b.errOut.String())
		}
		for _, args := range []string{"run --help", "schema --help", "bundle diff --help", "help ps", "ps --help", "version"} {
			b = newBench("")
			b.stdout = brokenWriter{c.err}
			if code := b.main(strings.Fields(args)); code != spec.ExitRefused || (c.lines == "") != (b.errOut.String() == "") {
				t.Errorf("%v: %s: exit %d, %q", c.err, args, code, b.errOut.String())
			}
		}
	}
}

func TestDryRun(t *testing.T) {
	b := newBench("")
	if code := b.run([]string{"--dry-run", "ls"}); code != 0 || b.out.String() != "1 mount\n2 execve\n" {
		t.Errorf("exit %d, %q", code, b.out.String())
	}
	b = newBench(`{"command":["ls"]}`)
	if code := b.run([]string{"--dry-run", "--json"}); code != 0 || b.out.String() != `{"plan":"1 mount\n2 execve\n"}`+"\n" {
		t.Errorf("exit %d, %q", code, b.out.String())
	}
}

// TestUndeliveredOutput plays a supervisor that loses the end of a live stream.
func TestUndeliveredOutput(t *testing.T) {
	for _, c := range []struct {
		total int64
		code  int
	}{{3, 7}, {4, spec.ExitRefused}} {
		b := newBench("")
		b.engine.run = func(_ context.Context, st supervisor.Streams, _ <-chan syscall.Signal) *spec.Response {
			io.WriteString(st.Stdout, "abc")
			r := exited(7)
			r.Output = &spec.Output{Stdout: spec.StreamCount{BytesTotal: c.total}}
			return r
		}
		code := b.run([]string{"ls"})
		if told := strings.Contains(b.errOut.String(), "E6001: pass the output on: 1 bytes of stdout"); code != c.code || told != (c.code == spec.ExitRefused) {
			t.Errorf("%d bytes: exit %d: %s", c.total, code, b.errOut.String())
		}
	}
}
