package server

import (
	"context"
	"syscall"

	"google.golang.org/protobuf/proto"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	supervisorv1 "github.com/capsule-run/capsule/supervisor/api/v1"
	"github.com/capsule-run/capsule/supervisor/api/wire"
)

// begun starts an execution and notes whose it is.
func (c *connection) begun(ctx context.Context, r *supervisorv1.StartRequest) (*api.Started, error) {
	// An end of the connection between the record of the execution and the note
	// of its owner would leave it to nobody.
	e, err := c.supervisor().Start(context.WithoutCancel(ctx), toStart(r))
	if err != nil {
		return nil, err
	}
	c.s.owners.started(&e.Summary, c)
	return e, nil
}

func (c *connection) start(ctx context.Context, r *supervisorv1.StartRequest) (*supervisorv1.StartResponse, error) {
	e, err := c.begun(ctx, r)
	if err != nil {
		return nil, err
	}
	return &supervisorv1.StartResponse{Execution: summary(&e.Summary), Created: e.Created}, nil
}

func (c *connection) run(ctx context.Context, r *supervisorv1.RunRequest) (*supervisorv1.RunResponse, error) {
	e, err := c.begun(ctx, r.Start)
	if err != nil {
		return nil, err
	}
	document, elided, err := c.ended(ctx, e.ID)
	if err != nil {
		return nil, err
	}
	return &supervisorv1.RunResponse{Response: document, OutputElided: elided}, nil
}

func (c *connection) wait(ctx context.Context, r *supervisorv1.WaitRequest) (*supervisorv1.WaitResponse, error) {
	if r.Own {
		c.s.owners.claim(r.ExecutionId, c)
	}
	document, elided, err := c.ended(ctx, r.ExecutionId)
	if err != nil {
		return nil, err
	}
	return &supervisorv1.WaitResponse{Response: document, OutputElided: elided}, nil
}

// ended waits for the end of an execution. Its response is without output when encode
// leaves that out.
func (c *connection) ended(ctx context.Context, id string) (document []byte, elided bool, err error) {
	if c.s.o.Answer != nil {
		if document := c.s.o.Answer(ctx, c.caller.UID, id); document != nil && roomFor(ctx, len(document)) {
			return document, false, nil
		}
	}
	response, err := c.supervisor().Wait(ctx, id)
	if err != nil {
		return nil, false, err
	}
	document, elided = encode(ctx, response)
	return document, elided, nil
}

// encode makes the document of a response, without output when that is large, or the
// caller does not take what it gets.
func encode(ctx context.Context, r *spec.Response) (document []byte, elided bool) {
	if r == nil {
		return nil, false
	}
	if n := size(r.Stdout) + size(r.Stderr); n <= wire.MaxResponse && roomFor(ctx, n) {
		if document = r.Encode(false); len(document) <= wire.MaxResponse {
			return document, r.OutputElided
		}
	}
	short := *r
	short.Stdout, short.Stderr, short.StdoutEncoding, short.StderrEncoding = nil, nil, "", ""
	return short.Encode(false), r.OutputElided || r.Stdout != nil || r.Stderr != nil
}

func size(s *string) int {
	if s == nil {
		return 0
	}
	return len(*s)
}

func (c *connection) kill(ctx context.Context, r *supervisorv1.KillRequest) (*supervisorv1.KillResponse, error) {
	if !r.All && (r.Signal < 1 || r.Signal > 64) {
		return nil, fault.New(fault.OutOfRange, "kill", "a signal is a number from 1 to 64").WithField("/signal")
	}
	delivered, err := c.supervisor().Kill(ctx, r.ExecutionId, syscall.Signal(r.Signal), r.All)
	if err != nil {
		return nil, err
	}
	return &supervisorv1.KillResponse{Delivered: delivered}, nil
}

// summary makes the message of s, shortened when it would fill an answer alone.
func summary(s *api.Summary) *supervisorv1.Summary {
	m := fromSummary(s)
	if proto.Size(m) > wire.MaxResponse/2 {
		shorten(m)
	}
	return m
}

// list answers with a smaller page than it was asked for when the larger one
// does not fit into a message.
func (c *connection) list(ctx context.Context, r *supervisorv1.ListRequest) (*supervisorv1.ListResponse, error) {
	f := toFilter(r)
	for {
		p, err := c.supervisor().List(ctx, f)
		if err != nil {
			return nil, err
		}
		m := fromPage(p)
		if proto.Size(m) <= wire.MaxRequest {
			return m, nil
		}
		if n := len(m.Executions); n > 1 {
			f.PageSize = n / 2
			continue
		}
		for _, s := range m.Executions {
			shorten(s)
		}
		return m, nil
	}
}

func (c *connection) inspect(ctx context.Context, r *supervisorv1.InspectRequest) (*supervisorv1.InspectResponse, error) {
	d, err := c.supervisor().Inspect(ctx, r.ExecutionId)
	if err != nil {
		return nil, err
	}
	m := &supervisorv1.InspectResponse{Execution: summary(&d.Summary), Pid: int32(d.Pid)}
	m.Response, m.OutputElided = encode(ctx, d.Response)
	if d.Request != nil {
		m.Request = d.Request.Encode()
	}
	if proto.Size(m) > wire.MaxMessage-1024 || !roomFor(ctx, len(m.Request)) {
		m.Request, m.RequestElided = nil, true
	}
	return m, nil
}

func (c *connection) stats(ctx context.Context, r *supervisorv1.StatsRequest) (*supervisorv1.StatsResponse, error) {
	all, err := c.supervisor().Stats(ctx, r.ExecutionIds)
	if err != nil {
		return nil, err
	}
	m := &supervisorv1.StatsResponse{}
	for i := range all {
		m.Stats = append(m.Stats, fromStats(&all[i]))
	}
	if proto.Size(m) > wire.MaxRequest {
		for _, s := range m.Stats {
			s.Command = shortenCommand(s.Command)
		}
	}
	return m, nil
}

func (c *connection) remove(ctx context.Context, r *supervisorv1.RemoveRequest) (*supervisorv1.RemoveResponse, error) {
	return &supervisorv1.RemoveResponse{}, c.supervisor().Remove(ctx, r.ExecutionId, r.Force)
}

func (c *connection) prune(ctx context.Context, r *supervisorv1.PruneRequest) (*supervisorv1.PruneResponse, error) {
	p, err := c.supervisor().Prune(ctx, &api.PruneOptions{Before: wire.Time(r.Before), Labels: r.Labels})
	if err != nil {
		return nil, err
	}
	return &supervisorv1.PruneResponse{Removed: int32(p.Removed), Bytes: p.Bytes}, nil
}

func (c *connection) info(ctx context.Context, _ *supervisorv1.InfoRequest) (*supervisorv1.InfoResponse, error) {
	i, err := c.supervisor().Info(ctx)
	if err != nil {
		return nil, err
	}
	return fromInfo(i), nil
}

func (c *connection) health(ctx context.Context, _ *supervisorv1.HealthRequest) (*supervisorv1.HealthResponse, error) {
	if c.s.o.Health != nil {
		h := c.s.o.Health(ctx)
		return &supervisorv1.HealthResponse{Status: h.Status, Problems: h.Problems}, nil
	}
	i, err := c.supervisor().Info(ctx)
	switch {
	case err != nil:
		return &supervisorv1.HealthResponse{Status: "degraded", Problems: []string{err.Error()}}, nil
	case i.Draining:
		return &supervisorv1.HealthResponse{Status: "draining"}, nil
	}
	return &supervisorv1.HealthResponse{Status: "serving"}, nil
}
