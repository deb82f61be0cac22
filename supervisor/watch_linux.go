package supervisor

import (
	"context"
	"strconv"
	"time"

	shimv1 "github.com/capsule-run/capsule/shim/shimapi/v1/plain"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/config"
)

// idleWatch is how often a new configuration is looked for while nothing is
// watched.
const idleWatch = time.Second

// crossing is a threshold that an execution has crossed.
type crossing struct{ id, limit string }

// Watch tells by events of executions that use more of a limit than the
// configuration's thresholds, each once, until ctx is done. A daemon calls it.
func (s *Supervisor) Watch(ctx context.Context) {
	told := map[crossing]bool{}
	for {
		pause := idleWatch
		if p := s.policy.Load(); p != nil && p.Config().Monitoring.Watches() {
			m := &p.Config().Monitoring
			pause = time.Duration(m.IntervalMS) * time.Millisecond
			told = s.look(ctx, m, told)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// look measures all that run and returns what has been told of them.
func (s *Supervisor) look(ctx context.Context, m *config.Monitoring, told map[crossing]bool) map[crossing]bool {
	all := &caller{s, 0}
	minders, others, err := s.present("")
	if err != nil {
		return told // housekeeping tells
	}
	live := all.unminded(others, &api.Filter{}, false)
	for _, m := range minders {
		if e, err := m.entry(); err == nil {
			live = append(live, e)
		}
	}
	next := map[crossing]bool{}
	for _, e := range live {
		if e.summary.Status != api.StatusRunning {
			continue
		}
		id := e.summary.ID
		for limit := range told {
			if limit.id == id {
				next[limit] = true
			}
		}
		for _, u := range s.uses(ctx, e, m) {
			at := crossing{id, u.limit}
			if u.percent == 0 || u.most <= 0 || next[at] || float64(u.used) < float64(u.most)*float64(u.percent)/100 {
				continue
			}
			next[at] = true
			s.emit(api.EventThreshold, id, map[string]string{"limit": u.limit, "percent": strconv.FormatInt(u.percent, 10),
				"used": strconv.FormatInt(u.used, 10), "limit_value": strconv.FormatInt(u.most, 10)})
		}
	}
	return next
}

// use is what an execution has used of a limit, and the threshold.
type use struct {
	limit               string
	used, most, percent int64
}

// uses measures one execution; nothing when it just ends.
func (s *Supervisor) uses(ctx context.Context, e *entry, m *config.Monitoring) (list []use) {
	req, err := s.request(e)
	if err != nil || req == nil {
		return nil
	}
	_ = s.connected(ctx, e, func(shim shimv1.ShimClient) error { // one that just ends has nothing to tell
		r, err := shim.Stats(ctx, &shimv1.StatsRequest{})
		if err != nil {
			return err
		}
		got, err := spec.DecodeResponse(r.Metrics)
		if err != nil {
			return err
		}
		if n := got.Metrics.MaxMemoryBytes; n != nil {
			list = append(list, use{"memory_bytes", *n, req.Resources.MemoryBytes, m.MemoryPercent})
		}
		if n := got.Metrics.CPUTimeMS; n != nil && req.Resources.CPUTimeMS != nil {
			list = append(list, use{"cpu_time_ms", int64(*n), *req.Resources.CPUTimeMS, m.CPUPercent})
		}
		if o := got.Output; o != nil {
			list = append(list, use{"max_output_bytes", max(o.Stdout.BytesTotal, o.Stderr.BytesTotal), req.Resources.MaxOutputBytes, m.OutputPercent})
		}
		return nil
	})
	return list
}
