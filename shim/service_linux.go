package shim

import (
	"github.com/capsule-run/capsule/shim/shimapi"

	"bytes"
	"context"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	shimv1 "github.com/capsule-run/capsule/shim/shimapi/v1"
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

// Create implements shimv1.ShimService.
func (s *service) Create(ctx context.Context, r *shimv1.CreateRequest) (*shimv1.CreateResponse, error) {
	first := false
	s.create.Do(func() {
		first = true
		if err := s.prepare(r); err != nil {
			s.e.note(func(o *observation) { o.failure = err })
		}
		close(s.e.prepared)
		go s.runWhenStarted()
	})
	if !first {
		return nil, status.Error(codes.FailedPrecondition, "the execution is created already")
	}
	if r.Start {
		_, err := s.Start(ctx, &shimv1.StartRequest{})
		return &shimv1.CreateResponse{Ok: s.e.observed().failure == nil}, err
	}
	return &shimv1.CreateResponse{Ok: s.e.observed().failure == nil}, nil
}

func (s *service) prepare(r *shimv1.CreateRequest) error {
	data := r.Request
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
	if r.Bundle != "" {
		if err := s.load(r.Bundle, req); err != nil {
			return err
		}
	}
	s.e.clock.mark("decode")
	return s.e.create(req, r.StreamStdin)
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

// Start implements shimv1.ShimService.
func (s *service) Start(ctx context.Context, _ *shimv1.StartRequest) (*shimv1.StartResponse, error) {
	first := false
	s.start.Do(func() { first = true; close(s.begun) })
	if !first {
		return nil, status.Error(codes.FailedPrecondition, "the execution is started already")
	}
	select {
	case <-s.e.running:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return &shimv1.StartResponse{Ok: s.e.observed().failure == nil}, nil
}

// Wait implements shimv1.ShimService.
func (s *service) Wait(ctx context.Context, _ *shimv1.WaitRequest) (*shimv1.WaitResponse, error) {
	select {
	case <-s.e.ended:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if len(s.e.response) > inlineMax {
		return &shimv1.WaitResponse{}, nil
	}
	return &shimv1.WaitResponse{Response: s.e.response}, nil
}

// Kill implements shimv1.ShimService.
func (s *service) Kill(ctx context.Context, r *shimv1.KillRequest) (*shimv1.KillResponse, error) {
	if r.All {
		live := !isClosed(s.e.ended)
		s.e.cancel()
		return &shimv1.KillResponse{Delivered: live}, nil
	}
	if r.Signal < 1 || r.Signal > 64 {
		return nil, status.Error(codes.InvalidArgument, "signal is not within 1..64")
	}
	delivered := s.e.signal(syscall.Signal(r.Signal), ctx.Done())
	return &shimv1.KillResponse{Delivered: delivered}, ctx.Err()
}

// State implements shimv1.ShimService.
func (s *service) State(_ context.Context, asked *shimv1.StateRequest) (*shimv1.StateResponse, error) {
	r := &shimv1.StateResponse{State: s.e.state(), ExecutionId: s.e.boot.ExecutionID, Created: s.e.created.UnixNano()}
	if asked.Request && isClosed(s.e.prepared) && s.e.req != nil {
		req := *s.e.req
		req.Stdin = nil
		if data := req.Encode(); len(data) <= inlineMax {
			r.Request = data
		}
	}
	if r.State == "running" && s.e.sandbox != nil {
		r.Pid = int32(s.e.sandbox.Pid)
	}
	return r, nil
}

// Stats implements shimv1.ShimService.
func (s *service) Stats(_ context.Context, q *shimv1.StatsRequest) (*shimv1.StatsResponse, error) {
	if !isClosed(s.e.running) || s.e.group == nil || s.e.sandbox == nil {
		return nil, status.Error(codes.FailedPrecondition, "nothing is measured")
	}
	o := s.e.observed()
	if !isClosed(s.e.ended) {
		o.stats, _ = s.e.group.Stats() // what could be read; the rest is null
		o.pressure = s.e.pressure()
		o.wall = monotonic() - s.e.started
	}
	r := &spec.Response{Metrics: metricsOf(o, s.e.plan.HasInit), Output: &spec.Output{Stdout: s.e.stdio.stdout.Counts(), Stderr: s.e.stdio.stderr.Counts()}}
	r.Metrics.StartupUS, r.Metrics.StartupPhases = s.e.clock.total(), s.e.clock.micros
	if q.Timeline {
		r.Timeline = s.e.timeline.points()
	}
	answer := &shimv1.StatsResponse{Metrics: r.Encode(false)}
	if isClosed(s.e.ended) {
		return answer, nil
	}
	answer.MemoryBytes, answer.Pids = o.stats.MemoryCurrent, s.e.group.Pids()
	if answer.Pids != nil && s.e.plan.HasInit {
		answer.Pids = ptr(max(*answer.Pids-1, 0))
	}
	return answer, nil
}

// Explain implements shimv1.ShimService.
func (s *service) Explain(_ context.Context, r *shimv1.ExplainRequest) (*shimv1.ExplainResponse, error) {
	text, err := explain(s.e.boot, r)
	if err != nil {
		refused := &spec.Response{Error: spec.ErrorFrom(err)}
		return &shimv1.ExplainResponse{Error: refused.Encode(false)}, nil
	}
	return &shimv1.ExplainResponse{Plan: text}, nil
}

func explain(b shimapi.Bootstrap, r *shimv1.ExplainRequest) (string, error) {
	var t *translation
	dir := r.Bundle
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
		req, err := spec.DecodeResolved(r.Request)
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

// Shutdown implements shimv1.ShimService.
func (s *service) Shutdown(context.Context, *shimv1.ShutdownRequest) (*shimv1.ShutdownResponse, error) {
	s.shutdown()
	return &shimv1.ShutdownResponse{}, nil
}

var _ shimv1.ShimService = (*service)(nil)
var _ ttrpc.Handshaker = handshaker{}
