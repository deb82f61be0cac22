package shim

import (
	"github.com/capsule-run/capsule/shim/shimapi"

	"bytes"
	"context"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/capsule-run/capsule/runtime/wire"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// inlineMax is the largest document that travels inside a message; a ttrpc
// message holds 4 MiB in all.
const inlineMax = 2 << 20

// service answers the calls of capsule.shim.v1 for the one execution.
type service struct {
	e        *execution
	create   sync.Once
	start    sync.Once
	begun    chan struct{} // closed by Start: run may go on
	shutdown func()
}

func newService(e *execution, shutdown func()) *service {
	return &service{e: e, begun: make(chan struct{}), shutdown: shutdown}
}

// Create is the call of shim.proto. False: Wait has the reason.
func (s *service) Create(ctx context.Context, r *createRequest) (ok bool, err error) {
	first := false
	s.create.Do(func() {
		first = true
		s.make(r)
		go s.runWhenStarted()
	})
	if !first {
		return false, &wire.Status{Code: wire.FailedPrecondition, Text: "the execution is created already"}
	}
	if r.start {
		return s.Start(ctx)
	}
	return s.e.observed().failure == nil, nil
}

// runFirst is Create and Start for the request that came with the bootstrap message,
// or stands in its record. It returns when nothing of the execution is left, unless
// another has created it, which nobody else asks for.
func (s *service) runFirst(r *createRequest) {
	first := false
	s.create.Do(func() {
		first = true
		s.make(r)
	})
	if first {
		s.start.Do(func() { close(s.begun) })
		s.runWhenStarted()
	}
}

// make creates the execution; what failed stands in its observation.
func (s *service) make(r *createRequest) {
	if err := s.prepare(r); err != nil {
		s.e.note(func(o *observation) { o.failure = err })
	}
	close(s.e.prepared)
}

func (s *service) prepare(r *createRequest) error {
	data := r.request
	recorded := len(data) == 0
	if recorded {
		var err error
		if data, err = os.ReadFile(s.e.dir.Request()); err != nil {
			return fault.Wrap(fault.IO, "read request", err)
		}
	}
	req, err := spec.DecodeResolved(data)
	if err != nil && recorded {
		return fault.New(fault.StateUnreadable, "decode request", err.Error()).WithPath(s.e.dir.Request())
	}
	if err != nil {
		return err
	}
	if r.bundle != "" {
		if err := s.load(r.bundle, req); err != nil {
			return err
		}
	}
	s.e.clock.mark("decode")
	return s.e.create(req, r.streamStdin)
}

// load takes a bundle to be run. Policy has judged what it asked for before.
func (s *service) load(dir string, req *spec.Request) error {
	f, err := loadBundle(dir, req)
	if err != nil {
		return err
	}
	if f.request.Resources.CPUQuota == nil && req.Resources.CPUQuota != nil {
		f.capCPU(*req.Resources.CPUQuota)
	}
	if !bytes.Equal(f.request.Encode(), req.Encode()) {
		return fault.New(fault.InvalidBundle, "load bundle", "it was changed while it was read").WithPath(dir)
	}
	s.e.foreign = f
	return nil
}

// runWhenStarted waits for Start; a failed creation runs at once, to its verdict.
func (s *service) runWhenStarted() {
	if s.e.observed().failure == nil {
		<-s.begun
	}
	s.e.run()
}

// Start is the call of shim.proto. False: Wait has the reason.
func (s *service) Start(ctx context.Context) (ok bool, err error) {
	first := false
	s.start.Do(func() { first = true; close(s.begun) })
	if !first {
		return false, &wire.Status{Code: wire.FailedPrecondition, Text: "the execution is started already"}
	}
	select {
	case <-s.e.running:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	return s.e.observed().failure == nil, nil
}

// Wait is the call of shim.proto. Nil: the response stands in result.json.
func (s *service) Wait(ctx context.Context) ([]byte, error) {
	select {
	case <-s.e.ended:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if len(s.e.response) > inlineMax {
		return nil, nil
	}
	return s.e.response, nil
}

// Kill is the call of shim.proto.
func (s *service) Kill(ctx context.Context, signal int32, all bool) (delivered bool, err error) {
	if all {
		live := !isClosed(s.e.ended)
		s.e.cancel()
		return live, nil
	}
	if signal < 1 || signal > 64 {
		return false, &wire.Status{Code: wire.InvalidArgument, Text: "signal is not within 1..64"}
	}
	delivered = s.e.signal(syscall.Signal(signal), ctx.Done())
	return delivered, ctx.Err()
}

// State is the call of shim.proto.
func (s *service) State(request bool) *stateResponse {
	r := &stateResponse{state: s.e.state(), executionID: s.e.boot.ExecutionID, created: s.e.created.UnixNano()}
	if request && isClosed(s.e.prepared) && s.e.req != nil {
		req := *s.e.req
		req.Stdin = nil
		if data := req.Encode(); len(data) <= inlineMax {
			r.request = data
		}
	}
	if r.state == "running" && s.e.sandbox != nil {
		r.pid = s.e.sandbox.Pid
	}
	return r
}

// Stats is the call of shim.proto.
func (s *service) Stats(timeline bool) (*statsResponse, error) {
	if !isClosed(s.e.running) || s.e.group == nil || s.e.sandbox == nil {
		return nil, &wire.Status{Code: wire.FailedPrecondition, Text: "nothing is measured"}
	}
	o := s.e.observed()
	if !isClosed(s.e.ended) {
		o.stats, _ = s.e.group.Stats() // what could be read; the rest is null
		o.pressure = s.e.pressure()
		o.wall = monotonic() - s.e.started
	}
	r := &spec.Response{Metrics: metricsOf(o, s.e.plan.HasInit), Output: &spec.Output{Stdout: s.e.stdio.stdout.Counts(), Stderr: s.e.stdio.stderr.Counts()}}
	r.Metrics.StartupUS, r.Metrics.StartupPhases = s.e.clock.total(), s.e.clock.micros
	if timeline {
		r.Timeline = s.e.timeline.points()
	}
	answer := &statsResponse{metrics: r.Encode(false)}
	if isClosed(s.e.ended) {
		return answer, nil
	}
	answer.memoryBytes, answer.pids = o.stats.MemoryCurrent, s.e.group.Pids()
	if answer.pids != nil && s.e.plan.HasInit {
		answer.pids = ptr(max(*answer.pids-1, 0))
	}
	return answer, nil
}

// Explain is the call of shim.proto; refusal is the error of an ExecutionResponse.
func (s *service) Explain(r *explainRequest) (plan string, refusal []byte) {
	text, err := explain(s.e.boot, r)
	if err != nil {
		return "", refused(err)
	}
	return text, nil
}

// refused is the error of an ExecutionResponse.
func refused(err error) []byte {
	r := &spec.Response{Error: spec.ErrorFrom(err)}
	return r.Encode(false)
}

func explain(b shimapi.Bootstrap, r *explainRequest) (string, error) {
	var t *translation
	dir := r.bundle
	if dir != "" {
		f, err := loadBundle(dir, spec.Default())
		if err != nil {
			return "", err
		}
		t, err = f.translate(b)
		if t.slot != nil {
			defer t.slot.Close() // nothing runs under these ids
		}
		if err != nil {
			return "", err
		}
	} else {
		req, err := spec.DecodeResolved(r.request)
		if err != nil {
			return "", err
		}
		if req.Isolation.Backend == spec.BackendProcess {
			t, err = translateBare(b, req, b.StateDir.Execution(b.ExecutionID).Bundle()+"/home")
		} else {
			t, err = translate(b, req, nil)
		}
		if t.slot != nil {
			defer t.slot.Close() // nothing runs under these ids
		}
		if err != nil {
			return "", err
		}
		dir = b.StateDir.Execution(b.ExecutionID).Bundle()
	}
	p, err := t.compile(dir, 0)
	if err != nil {
		return "", err
	}
	var text strings.Builder
	err = p.Explain(&text)
	return text.String(), err
}
