package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
)

// lost is what a client says when its connection is gone.
func lost() error { return fault.Wrap(fault.Unreachable, "attach", errors.New("ttrpc: closed")) }

// onStart makes the fake play an execution as soon as it is started.
type onStart struct {
	*fakeSupervisor
	begin func(*fakeRecord)
}

func (f onStart) Start(ctx context.Context, r *api.StartRequest) (*api.Started, error) {
	s, err := f.fakeSupervisor.Start(ctx, r)
	if err == nil && s.Created {
		x, _ := f.find(r.ID)
		f.begin(x)
	}
	return s, err
}

// daemonBench is a bench whose daemon plays begin.
func daemonBench(stdin string, begin func(*fakeRecord)) *bench {
	b := newBench(stdin)
	b.dial = func(_ context.Context, address string) (api.Supervisor, func() error, error) {
		b.dials = append(b.dials, address)
		return onStart{b.supervisor, begin}, func() error { return nil }, nil
	}
	return b
}

func endsWith(r *spec.Response, out, errs string) func(*fakeRecord) {
	return func(x *fakeRecord) {
		x.out, x.errs = out, errs
		r.ExecutionID = x.ID
		r.Output = &spec.Output{Stdout: spec.StreamCount{BytesTotal: int64(len(out))}, Stderr: spec.StreamCount{BytesTotal: int64(len(errs))}}
		x.Response = r
		x.end()
	}
}

func TestRunThroughADaemon(t *testing.T) {
	b := daemonBench("in", endsWith(exited(7), "out", "err"))
	if code := b.main([]string{"run", "--address", "unix:///there", "-i", "-t", "5s", "--", "cat"}); code != 7 {
		t.Errorf("exit %d", code)
	}
	if b.out.String() != "out" || b.errOut.String() != "err" || b.supervisor.stdin.String() != "in" || b.dials[0] != "/there" {
		t.Errorf("stdout %q, stderr %q, stdin %q, dialled %q", b.out.String(), b.errOut.String(), b.supervisor.stdin.String(), b.dials)
	}
	start := b.supervisor.starts[0]
	if !start.KillOnDisconnect || !start.StreamStdin || !isUUID(start.ID) || !strings.Contains(string(start.Request), `"timeout_ms":5000`) || b.engine.request != nil {
		t.Errorf("%+v", start)
	}
}

func TestRunJSONThroughADaemon(t *testing.T) {
	const request = `{"command":["ls"], "timeout_ms":77}`
	b := daemonBench(request, endsWith(exited(3), "", ""))
	if code := b.main([]string{"run", "--address", "/there", "--json", "-p", "high-security", "--execution-id", idA}); code != 3 {
		t.Errorf("exit %d: %s", code, b.errOut.String())
	}
	document(t, b.out.String())
	start := b.supervisor.starts[0]
	if string(start.Request) != request || start.Profile != "high-security" || start.ID != idA || start.StreamStdin || b.supervisor.log() != "start; wait" {
		t.Errorf("%+v, %s", start, b.supervisor.log())
	}
}

// TestDaemonRestarts loses the connection in the middle of each call.
func TestDaemonRestarts(t *testing.T) {
	for _, call := range []string{"start", "attach", "wait"} {
		b := daemonBench("", endsWith(exited(7), "0123456789", ""))
		var losses atomic.Int32
		b.supervisor.lose = func(name string) error {
			if name == call && losses.Add(1) <= 2 {
				return lost()
			}
			return nil
		}
		if code := b.main([]string{"run", "--address", "/there", "ls"}); code != 7 || b.out.String() != "0123456789" || b.errOut.String() != "" {
			t.Errorf("%s: exit %d, %q, %q; %s", call, code, b.out.String(), b.errOut.String(), b.supervisor.log())
		}
		if len(b.dials) != 3 {
			t.Errorf("%s: %d connections", call, len(b.dials))
		}
	}
}

// halfway passes half of the output on and loses the connection.
type halfway struct {
	onStart
	half *atomic.Bool
}

func (h halfway) Attach(ctx context.Context, id string, o *api.AttachOptions) error {
	if h.half.Swap(true) {
		return h.onStart.Attach(ctx, id, o)
	}
	_, _ = io.WriteString(o.Stdout, "01234")
	o.Missed("stderr", 3)
	_, _ = io.ReadFull(o.Stdin, make([]byte, 2))
	return lost()
}

// TestAttachesWhereItWas tells that no byte comes twice, none is left out, and
// that input which may be lost is told.
func TestAttachesWhereItWas(t *testing.T) {
	b := daemonBench("abcd", nil)
	var half atomic.Bool
	begin := endsWith(exited(7), "0123456789", "xyz!")
	b.dial = func(context.Context, string) (api.Supervisor, func() error, error) {
		return halfway{onStart{b.supervisor, begin}, &half}, func() error { return nil }, nil
	}
	code := b.main([]string{"run", "-i", "--address", "/there", "ls"})
	if b.out.String() != "0123456789" || b.supervisor.stdin.String() != "cd" {
		t.Errorf("stdout %q, stdin %q", b.out.String(), b.supervisor.stdin.String())
	}
	// Three bytes of stderr were missed, which must not look like all of it.
	if says := b.errOut.String(); code != spec.ExitRefused || !strings.Contains(says, "input that was on its way may be missing") || !strings.Contains(says, "0 bytes of stdout and 3 of stderr") {
		t.Errorf("exit %d, %q", code, says)
	}
	// Wait is called beside the others.
	calls := strings.ReplaceAll(b.supervisor.log(), "; wait", "")
	if !strings.HasPrefix(calls, "start; inspect; start; attach") && !strings.HasPrefix(calls, "start; inspect; attach") {
		t.Errorf("calls %s", b.supervisor.log())
	}
}

// TestDaemonDoesNotComeBack tells that the fate of the command is not invented.
func TestDaemonDoesNotComeBack(t *testing.T) {
	b := daemonBench("", func(*fakeRecord) {})
	dial := b.dial
	b.dial = func(ctx context.Context, address string) (api.Supervisor, func() error, error) {
		if len(b.dials) > 0 {
			return nil, nil, fault.Wrap(fault.Unreachable, "connect", syscall.ECONNREFUSED)
		}
		return dial(ctx, address)
	}
	b.patience = 1
	b.supervisor.lose = func(name string) error {
		if name == "wait" {
			return lost()
		}
		return nil
	}
	if code := b.main([]string{"run", "--address", "/there", "-o", "json", "ls"}); code != spec.ExitRefused {
		t.Errorf("exit %d", code)
	}
	if r := document(t, b.out.String()); r.Status != spec.StatusError || r.Error.Code != string(fault.Unreachable) || r.Termination.Reason != spec.ReasonShimLost {
		t.Errorf("%+v", r)
	}
}

// TestSignalsThroughADaemon sends Ctrl-C twice.
func TestSignalsThroughADaemon(t *testing.T) {
	b := daemonBench("", nil)
	killed := make(chan bool, 4)
	begin := func(x *fakeRecord) {
		x.onKill = func(_ syscall.Signal, all bool) {
			if all {
				x.Response = signalled(spec.StatusKilled, spec.ReasonKilledByCaller, 9)
				x.end()
			}
			killed <- all
		}
	}
	b.dial = func(context.Context, string) (api.Supervisor, func() error, error) {
		return onStart{b.supervisor, begin}, func() error { return nil }, nil
	}
	code := make(chan int)
	go func() { code <- b.main([]string{"run", "--address", "/there", "sleep", "9"}) }()
	r := <-b.relay
	waitStarted(r)
	r.deliver(syscall.SIGINT)
	if all := <-killed; all {
		t.Error("the first signal killed all")
	}
	r.deliver(syscall.SIGINT)
	if got := <-code; got != 130 || b.errOut.String() != "capsule: killed: interrupted by SIGINT\n" {
		t.Errorf("exit %d, %q", got, b.errOut.String())
	}
}

func TestDetach(t *testing.T) {
	for args, want := range map[string]string{"-d ls": idA + "\n", "-d -o json ls": `{"execution_id":"` + idA + "\"}\n"} {
		b := newBench("")
		if code := b.main(append([]string{"run", "--address=/there", "--execution-id", idA}, strings.Fields(args)...)); code != 0 || b.out.String() != want {
			t.Errorf("%s: exit %d, %q, %q", args, code, b.out.String(), b.errOut.String())
		}
		if s := b.supervisor.starts[0]; s.KillOnDisconnect || s.StreamStdin || b.supervisor.log() != "start" {
			t.Errorf("%s: %+v", args, s)
		}
	}
	b := newBench("")
	if code := b.main([]string{"run", "--embedded", "-d", "-i", "ls"}); code != 0 || len(b.dials) != 0 || !b.supervisor.starts[0].StreamStdin {
		t.Errorf("embedded: exit %d, dialled %v", code, b.dials)
	}
}

// TestWhichSupervisor tells when a daemon is used and when it has to be there.
func TestWhichSupervisor(t *testing.T) {
	state := t.TempDir()
	t.Setenv("CAPSULE_STATE", state)
	run := func(environment string, args ...string) (*bench, int) {
		b := newBench("")
		b.lookupEnv = func(name string) (string, bool) { return environment, name == "CAPSULE_ADDRESS" && environment != "" }
		return b, b.main(append([]string{"run"}, args...))
	}
	if b, code := run("", "ls"); code != 0 || len(b.dials) != 0 || b.engine.request == nil {
		t.Errorf("no socket: exit %d, dialled %v", code, b.dials)
	}
	socket := filepath.Join(state, "capsuled.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if b, code := run("", "ls"); code != 0 || len(b.dials) != 1 || b.dials[0] != socket || b.engine.request == nil {
		t.Errorf("a socket of a dead daemon: exit %d, dialled %v", code, b.dials)
	}
	if b, code := run("/nobody", "ls"); code != spec.ExitRefused || !strings.Contains(b.errOut.String(), "E6004") || b.engine.request != nil {
		t.Errorf("CAPSULE_ADDRESS without a daemon: exit %d, %s", code, b.errOut.String())
	}
	if b, code := run("/nobody", "--embedded", "ls"); code != 0 || len(b.dials) != 0 {
		t.Errorf("--embedded: exit %d, dialled %v", code, b.dials)
	}
	if b, code := run("/nobody", "--dry-run", "ls"); code != 0 || len(b.dials) != 0 {
		t.Errorf("--dry-run: exit %d, dialled %v", code, b.dials)
	}
	if err := os.Remove(socket); err != nil {
		t.Fatal(err)
	}
}

// TestAttach tells that it exits and speaks like run.
func TestAttach(t *testing.T) {
	b := newBench("in")
	r := b.supervisor.add(idA, nil, "cat")
	r.out, r.errs = "out", "err"
	r.Response = signalled(spec.StatusTimeout, spec.ReasonTimeoutWall, 15)
	r.end()
	if code := b.main([]string{"attach", "aaaa", "--address=/there"}); code != spec.ExitTimeout || b.out.String() != "out" || b.supervisor.stdin.String() != "in" {
		t.Errorf("exit %d, %q, stdin %q", code, b.out.String(), b.supervisor.stdin.String())
	}
	if says := b.errOut.String(); !strings.HasPrefix(says, "err") || !strings.Contains(says, "timed out after 30 s") {
		t.Errorf("stderr %q", says)
	}
	b.supervisor.stdin.Reset()
	if b.main([]string{"attach", "--no-stdin", "-o", "json", idA, "--address=/there"}); b.supervisor.stdin.String() != "" {
		t.Error("stdin is passed on unasked")
	}
}

// TestAttachReaderLeaves tells that a reader that goes away detaches and ends nothing.
func TestAttachReaderLeaves(t *testing.T) {
	b := newBench("")
	r := b.supervisor.add(idA, nil, "yes")
	r.out = "y\n"
	b.stdout = brokenWriter{syscall.EPIPE}
	if code := b.main([]string{"attach", idA, "--address=/there"}); code != 141 || strings.Contains(b.supervisor.log(), "kill") {
		t.Errorf("exit %d, %s", code, b.supervisor.log())
	}
}

// TestEventsResume loses the connection after each event.
func TestEventsResume(t *testing.T) {
	b := newBench("")
	b.supervisor.events = []api.Event{{Sequence: 1, Type: "a"}, {Sequence: 2, Type: "b"}, {Sequence: 3, Type: "c"}}
	left := 2
	b.supervisor.lose = func(name string) error {
		if name == "event" && left > 0 {
			left--
			return lost()
		}
		return nil
	}
	if code := b.main([]string{"events", "--since", "0", "-o", "json", "--address=/there"}); code != 0 || strings.Count(b.out.String(), "\n") != 3 {
		t.Errorf("exit %d: %s", code, b.out.String())
	}
}
