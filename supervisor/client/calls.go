package client

import (
	"context"
	"errors"
	"syscall"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	supervisorv1 "github.com/capsule-run/capsule/supervisor/api/v1/plain"
	"github.com/capsule-run/capsule/supervisor/api/wire"
)

// Run starts an execution and waits for its response. A done ctx ends the wait,
// not the execution, unless that has KillOnDisconnect and nobody else owns it
// when the Client is closed.
func (c *Client) Run(ctx context.Context, r *api.StartRequest) (*spec.Response, error) {
	if len(r.Request) > wire.MaxRequest {
		e, err := c.Start(ctx, r)
		if err != nil {
			return nil, err
		}
		return c.Wait(ctx, e.ID)
	}
	m, err := c.api.Run(ctx, &supervisorv1.RunRequest{Start: wire.FromStart(r)})
	if err != nil {
		return nil, wire.Fault(ctx, "run", err)
	}
	return c.response(ctx, m.Response, m.OutputElided)
}

// Start implements api.Supervisor.
func (c *Client) Start(ctx context.Context, r *api.StartRequest) (*api.Started, error) {
	r, stdin, err := split(r)
	if err != nil {
		return nil, err
	}
	m, err := c.api.Start(ctx, wire.FromStart(r))
	if err != nil {
		return nil, wire.Fault(ctx, "start", err)
	}
	e := &api.Started{Summary: wire.ToSummary(m.Execution), Created: m.Created}
	if stdin != nil && e.Created {
		c.feed(e.ID, stdin)
	}
	return e, nil
}

// Wait implements api.Supervisor.
func (c *Client) Wait(ctx context.Context, id string) (*spec.Response, error) {
	return c.wait(ctx, id, false)
}

// WaitOwned is Wait by which this Client takes over an execution that was
// started with KillOnDisconnect, from a connection that is lost or not.
func (c *Client) WaitOwned(ctx context.Context, id string) (*spec.Response, error) {
	return c.wait(ctx, id, true)
}

func (c *Client) wait(ctx context.Context, id string, own bool) (*spec.Response, error) {
	m, err := c.api.Wait(ctx, &supervisorv1.WaitRequest{ExecutionId: id, Own: own})
	if err != nil {
		return nil, wire.Fault(ctx, "wait", err)
	}
	return c.response(ctx, m.Response, m.OutputElided)
}

// response decodes a response and fetches output that did not fit into it.
func (c *Client) response(ctx context.Context, document []byte, elided bool) (*spec.Response, error) {
	r, err := spec.DecodeResponse(document)
	if err != nil || !elided {
		return r, err
	}
	err = c.fetch(ctx, r)
	if errors.Is(err, &fault.Fault{Code: fault.NotFound}) || errors.Is(err, &fault.Fault{Code: fault.OutputCapture}) {
		// The history may have dropped it meanwhile, of which the response tells now.
		if now, again := c.api.Inspect(ctx, &supervisorv1.InspectRequest{ExecutionId: r.ExecutionID}); again == nil && !now.OutputElided {
			return spec.DecodeResponse(now.Response)
		}
	}
	return r, err
}

// Kill implements api.Supervisor.
func (c *Client) Kill(ctx context.Context, id string, sig syscall.Signal, all bool) (bool, error) {
	m, err := c.api.Kill(ctx, &supervisorv1.KillRequest{ExecutionId: id, Signal: int32(sig), All: all})
	if err != nil {
		return false, wire.Fault(ctx, "kill", err)
	}
	return m.Delivered, nil
}

// List implements api.Supervisor. A page may have fewer executions than its
// size although another follows; only an empty Next says that it is the last.
func (c *Client) List(ctx context.Context, f *api.Filter) (*api.Page, error) {
	m, err := c.api.List(ctx, wire.FromFilter(f))
	if err != nil {
		return nil, wire.Fault(ctx, "list", err)
	}
	return wire.ToPage(m), nil
}

// Inspect implements api.Supervisor. Request is nil when it is too large to be sent.
func (c *Client) Inspect(ctx context.Context, id string) (*api.Details, error) {
	m, err := c.api.Inspect(ctx, &supervisorv1.InspectRequest{ExecutionId: id})
	if err != nil {
		return nil, wire.Fault(ctx, "inspect", err)
	}
	d := &api.Details{Summary: wire.ToSummary(m.Execution), Pid: int(m.Pid)}
	if len(m.Request) > 0 {
		if d.Request, err = spec.DecodeResolved(m.Request); err != nil {
			return nil, err
		}
	}
	if len(m.Response) > 0 {
		if d.Response, err = c.response(ctx, m.Response, m.OutputElided); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// Stats implements api.Supervisor.
func (c *Client) Stats(ctx context.Context, ids []string) ([]api.Stats, error) {
	m, err := c.api.Stats(ctx, &supervisorv1.StatsRequest{ExecutionIds: ids})
	if err != nil {
		return nil, wire.Fault(ctx, "stats", err)
	}
	all := make([]api.Stats, len(m.Stats))
	for i, s := range m.Stats {
		if all[i], err = wire.ToStats(s); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Remove implements api.Supervisor.
func (c *Client) Remove(ctx context.Context, id string, force bool) error {
	_, err := c.api.Remove(ctx, &supervisorv1.RemoveRequest{ExecutionId: id, Force: force})
	return wire.Fault(ctx, "remove", err)
}

// Prune implements api.Supervisor.
func (c *Client) Prune(ctx context.Context, o *api.PruneOptions) (*api.Pruned, error) {
	m, err := c.api.Prune(ctx, &supervisorv1.PruneRequest{Before: wire.Nanos(o.Before), Labels: o.Labels})
	if err != nil {
		return nil, wire.Fault(ctx, "prune", err)
	}
	return &api.Pruned{Removed: int(m.Removed), Bytes: m.Bytes}, nil
}

// Info implements api.Supervisor.
func (c *Client) Info(ctx context.Context) (*api.Info, error) {
	m, err := c.api.Info(ctx, &supervisorv1.InfoRequest{})
	if err != nil {
		return nil, wire.Fault(ctx, "info", err)
	}
	return wire.ToInfo(m), nil
}

// Health says how the supervisor is: "serving", "draining" or "degraded", and
// in the last case why.
func (c *Client) Health(ctx context.Context) (status string, problems []string, err error) {
	m, err := c.api.Health(ctx, &supervisorv1.HealthRequest{})
	if err != nil {
		return "", nil, wire.Fault(ctx, "health", err)
	}
	return m.Status, m.Problems, nil
}

// Events implements api.Supervisor. What f returns is returned as it is.
func (c *Client) Events(ctx context.Context, after uint64, follow bool, f func(api.Event) error) error {
	if err := ctx.Err(); err != nil {
		return wire.Fault(ctx, "events", err)
	}
	s, err := c.api.Events(context.Background(), &supervisorv1.EventsRequest{After: after, NoFollow: !follow}, mostWaiting)
	if err != nil {
		return wire.Fault(ctx, "events", err)
	}
	defer s.CloseSend()
	taken := int32(0)
	for {
		select {
		case <-ctx.Done():
			return wire.Fault(ctx, "events", ctx.Err())
		case message, ok := <-s.In():
			if !ok {
				return wire.Fault(ctx, "events", s.Err())
			}
			m := new(supervisorv1.EventsResponse)
			m.Decode(message)
			if err := f(wire.ToEvent(m)); err != nil {
				return err
			}
			if taken++; taken == ackEvery {
				taken = 0
				_ = s.Send(&supervisorv1.EventsRequest{Acknowledged: ackEvery}) // the end is told by In
			}
		}
	}
}

// tooLarge is the fault of a request that cannot be sent.
func tooLarge(size int) error {
	return fault.New(fault.OutOfRange, "start", sizeMessage(size)).
		WithHint("Pass large data by stdin or by a bind mount.")
}
