package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/events"
)

const (
	// rememberedEnds is how many ended executions are remembered, so that one is
	// not told twice: its end and what recovery finds are two events.
	rememberedEnds = 4096
	// followRetry is the pause after a failure to read events.
	followRetry = time.Second
	// lookTime bounds looking up one execution.
	lookTime = 5 * time.Second
)

// follower passes events on to the metrics and the audit log.
type follower struct {
	sup     api.Supervisor
	metrics *metrics
	audit   *audit
	log     *slog.Logger

	// since is the last event before this process's own; those up to it are not
	// counted. at is the last event seen.
	since, at uint64
	seen      map[string]struct{}
	order     []string // of seen, a ring
	oldest    int

	stop context.CancelFunc
	done chan struct{}
}

// newFollower begins behind what the audit log has.
func newFollower(ctx context.Context, sup api.Supervisor, m *metrics, a *audit, log *slog.Logger) (*follower, error) {
	info, err := sup.Info(ctx)
	if err != nil {
		return nil, err
	}
	f := &follower{sup: sup, metrics: m, audit: a, log: log, since: info.Sequence, at: info.Sequence,
		seen: map[string]struct{}{}, done: make(chan struct{})}
	sequence, ended := a.last()
	if sequence > 0 && sequence < f.at {
		f.at = sequence
	}
	for _, id := range ended {
		f.remember(id)
	}
	return f, nil
}

// start follows until finish.
func (f *follower) start() {
	ctx, cancel := context.WithCancel(context.Background())
	f.stop = cancel
	go func() {
		defer close(f.done)
		for ctx.Err() == nil {
			err := f.sup.Events(ctx, f.at, true, f.take)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				f.log.Warn("events cannot be read; metrics and audit log wait", "error", err)
			}
			select {
			case <-time.After(followRetry):
			case <-ctx.Done():
			}
		}
	}()
}

// finish takes what is left and ends. What comes later is for the next process.
func (f *follower) finish() {
	f.stop()
	<-f.done
	if err := f.sup.Events(context.Background(), f.at, false, f.take); err != nil {
		f.log.Warn("the last events cannot be read", "error", err)
	}
}

// take deals with one event.
func (f *follower) take(e api.Event) error {
	f.at = e.Sequence
	ended := false
	switch e.Type {
	case api.EventEnded, api.EventCollected, api.EventLost:
		ended = f.remember(e.ExecutionID)
	case events.Missed:
		f.log.Warn("more happened than could be counted", "events", e.Attributes["count"])
	}
	if e.Sequence > f.since {
		f.metrics.count(&e, ended)
	}
	if ended && f.audit != nil { // whose it was is not looked up for nothing
		f.audit.end(&e, f.whose)
	}
	return nil
}

// remember tells whether the end of an execution is new.
func (f *follower) remember(id string) bool {
	if _, known := f.seen[id]; known {
		return false
	}
	f.seen[id] = struct{}{}
	if len(f.order) < rememberedEnds {
		f.order = append(f.order, id)
		return true
	}
	delete(f.seen, f.order[f.oldest])
	f.order[f.oldest] = id
	f.oldest = (f.oldest + 1) % rememberedEnds
	return true
}

// whose finds the summary of an execution.
func (f *follower) whose(id string) (api.Summary, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), lookTime)
	defer cancel()
	page, err := f.sup.List(ctx, &api.Filter{All: true, IDPrefix: id, PageSize: 1})
	if err != nil || len(page.Executions) == 0 {
		return api.Summary{}, false
	}
	return page.Executions[0], true
}

// counting is a caller's supervisor whose refusals are counted, those of a
// request that is wrong among them: no event tells of these.
type counting struct {
	api.Supervisor
	metrics *metrics
}

// Start implements api.Supervisor.
func (c *counting) Start(ctx context.Context, r *api.StartRequest) (*api.Started, error) {
	e, err := c.Supervisor.Start(ctx, r)
	if err != nil {
		c.metrics.refused.WithLabelValues(codeOf(err)).Inc()
	}
	return e, err
}
