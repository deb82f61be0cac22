package supervisor

import (
	"context"
	"sync"
	"time"

	shimv1 "github.com/capsule-run/capsule/shim/shimapi/v1/plain"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/history"
)

// tellPatience is how long a shim may take to tell of its execution. What one that
// is stopped would tell is left out.
const tellPatience = 2 * time.Second

// shimsAtOnce is how many shims are asked at a time.
const shimsAtOnce = 16

// Inspect implements api.Supervisor.
func (c *caller) Inspect(ctx context.Context, id string) (*api.Details, error) {
	e, err := c.find(id)
	if err != nil {
		return nil, err
	}
	d := &api.Details{Summary: e.summary}
	if d.Request, err = c.s.request(e); err != nil {
		return nil, err
	}
	if !e.summary.Live() {
		d.Response, err = c.s.response(e)
		return d, err
	}
	d.Response = &spec.Response{ExecutionID: id, Status: spec.StatusRunning, Timestamps: spec.Timestamps{Created: e.summary.Created}}
	if !e.summary.Started.IsZero() {
		d.Response.Timestamps.Started = &e.summary.Started
	}
	if e.summary.Status != api.StatusRunning {
		return d, nil
	}
	ctx, cancel := context.WithTimeout(ctx, tellPatience)
	defer cancel()
	// What its shim does not tell stays null.
	_ = c.s.connected(ctx, e, func(shim shimv1.ShimClient) error {
		if state, err := shim.State(ctx, &shimv1.StateRequest{}); err == nil {
			d.Pid = int(state.Pid)
		}
		stats, err := shim.Stats(ctx, &shimv1.StatsRequest{Timeline: true})
		if err == nil {
			if got, err := spec.DecodeResponse(stats.Metrics); err == nil {
				d.Response.Metrics, d.Response.Timeline = got.Metrics, got.Timeline
			}
		}
		return err
	})
	return d, nil
}

// request is the resolved request of an execution; nil when it is not kept.
func (s *Supervisor) request(e *entry) (*spec.Request, error) {
	var data []byte
	if e.foreground {
		return e.request, nil
	}
	if e.dir != "" {
		data, _ = requestOf(e.dir, e.digest) // a damaged one is told when the execution is collected
	} else {
		err := s.history(func(h *history.Store) error {
			r, err := h.Get(e.summary.ID)
			if err == nil {
				data = r.Request
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if len(data) == 0 {
		return nil, nil
	}
	return spec.DecodeResolved(data)
}

func metricsFrom(r *shimv1.StatsResponse) spec.Metrics {
	if got, err := spec.DecodeResponse(r.Metrics); err == nil {
		return got.Metrics
	}
	return spec.Metrics{}
}

// Stats implements api.Supervisor.
func (c *caller) Stats(ctx context.Context, ids []string) ([]api.Stats, error) {
	all := len(ids) == 0
	if len(ids) > pageMax {
		return nil, fault.New(fault.OutOfRange, "", "more than 1000 executions").WithField("/execution_ids")
	}
	var live []*entry
	if all {
		var err error
		if live, err = c.living(&api.Filter{}, nil, everyLiving); err != nil {
			return nil, err
		}
	}
	n := max(len(ids), len(live))
	found := make([]*api.Stats, n)
	faults := make([]error, n)
	var asked sync.WaitGroup
	slots := make(chan struct{}, shimsAtOnce)
	for i := range n {
		slots <- struct{}{}
		asked.Go(func() {
			defer func() { <-slots }()
			if all {
				found[i], faults[i] = c.statsOf(ctx, live[i])
			} else if e, err := c.find(ids[i]); err != nil {
				faults[i] = err
			} else {
				found[i], faults[i] = c.statsOf(ctx, e)
			}
		})
	}
	asked.Wait()
	if err := ctx.Err(); err != nil {
		return nil, fault.Wrap(fault.Cancelled, "stats", err)
	}
	stats := make([]api.Stats, 0, n)
	for i, one := range found {
		switch {
		case faults[i] == nil:
			stats = append(stats, *one)
		case !all: // of all some may have left meanwhile
			return nil, faults[i]
		}
	}
	return stats, nil
}

// statsOf measures one execution.
func (c *caller) statsOf(ctx context.Context, e *entry) (*api.Stats, error) {
	if !e.summary.Live() {
		return nil, fault.New(fault.InvalidValue, "", "the execution has ended").WithField("/execution_id").
			WithHint("inspect shows what was measured.")
	}
	one := &api.Stats{ID: e.summary.ID, Command: e.summary.Command, Metrics: new(spec.Metrics), MemoryLimit: e.memory, PidsLimit: e.pids}
	if e.summary.Status != api.StatusRunning {
		return one, nil
	}
	ctx, cancel := context.WithTimeout(ctx, tellPatience)
	defer cancel()
	// One that just ends has nothing to tell.
	_ = c.s.connected(ctx, e, func(shim shimv1.ShimClient) error {
		r, err := shim.Stats(ctx, &shimv1.StatsRequest{})
		if err == nil {
			*one.Metrics = metricsFrom(r)
			one.Memory, one.Pids = r.MemoryBytes, r.Pids
		}
		return err
	})
	return one, nil
}
