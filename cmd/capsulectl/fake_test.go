package main

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/policy"
)

// fakeEngine stands in for the supervisor: it records what it is asked for.
type fakeEngine struct {
	request  *spec.Request
	id       string
	startErr error
	panics   bool
	// run plays the payload; nil: it exits with 0 at once.
	run func(ctx context.Context, st supervisor.Streams, kills <-chan syscall.Signal) *spec.Response
}

func (f *fakeEngine) Start(ctx context.Context, o *order, st supervisor.Streams) (execution, error) {
	if f.panics {
		panic("a defect")
	}
	f.request, f.id = o.request, o.id
	if f.startErr != nil {
		return nil, f.startErr
	}
	x := &fakeExecution{kills: make(chan syscall.Signal, 8), done: make(chan *spec.Response, 1)}
	go func() {
		if f.run == nil {
			x.done <- exited(0)
			return
		}
		x.done <- f.run(ctx, st, x.kills)
	}()
	return x, nil
}

func (f *fakeEngine) Explain(_ context.Context, req *spec.Request) (string, error) {
	f.request = req
	return "1 mount\n2 execve\n", f.startErr
}

func (f *fakeEngine) ExplainBundle(_ context.Context, dir string) (string, error) {
	return "plan of " + dir + "\n", f.startErr
}

type fakeExecution struct {
	kills chan syscall.Signal
	done  chan *spec.Response
}

func (x *fakeExecution) Kill(s syscall.Signal, _ bool) error { x.kills <- s; return nil }
func (x *fakeExecution) Wait() *spec.Response                { return <-x.done }

func exited(code int) *spec.Response {
	return &spec.Response{Status: spec.StatusSuccess, Termination: spec.Termination{Reason: spec.ReasonExited}, ExitCode: &code}
}

func signalled(status spec.Status, reason spec.Reason, signal int) *spec.Response {
	return &spec.Response{Status: status, Termination: spec.Termination{Reason: reason}, Signal: &signal}
}

// bench is a console with buffers around a fake engine.
type bench struct {
	console
	engine     *fakeEngine
	supervisor *fakeSupervisor // behind the socket, and in this process for verbs other than run
	dials      []string
	// columns and rows are the terminal's that all streams are; 0: they are none.
	columns, rows int
	out, errOut   lockedBuffer
	relay         chan *relay
}

func newBench(stdin string) *bench {
	b := &bench{engine: &fakeEngine{}, supervisor: &fakeSupervisor{}, relay: make(chan *relay, 1)}
	b.console = console{
		stdin: strings.NewReader(stdin), stdout: &b.out, stderr: &b.errOut,
		lookupEnv: func(name string) (string, bool) { return "value of " + name, name == "PRESENT" },
		open:      func(*policy.Policy) (engine, error) { return b.engine, nil },
		catch:     func(r *relay) { close(r.ready); b.relay <- r },
		exit:      func(int) { panic("exit") },
		core: func(*policy.Policy) (api.Supervisor, func() error, error) {
			return b.supervisor, func() error { return nil }, nil
		},
		dial: func(_ context.Context, address string) (api.Supervisor, func() error, error) {
			if b.dials = append(b.dials, address); !strings.HasPrefix(address, "/there") {
				return nil, nil, fault.Wrap(fault.Unreachable, "connect", syscall.ECONNREFUSED)
			}
			return b.supervisor, func() error { return nil }, nil
		},
		size:  func(any) (int, int, bool) { return b.columns, b.rows, b.columns > 0 },
		sleep: func(context.Context, time.Duration) {}, patience: returnPatience,
	}
	return b
}

// lockedBuffer is a buffer for two goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// brokenWriter fails every write with err.
type brokenWriter struct{ err error }

func (w brokenWriter) Write([]byte) (int, error) { return 0, w.err }

var _ io.Writer = brokenWriter{}
