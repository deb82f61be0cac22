package main

import (
	"context"
	"slices"
	"sync"

	"github.com/capsule-run/capsule/supervisor/server"
)

// What Health and /healthz answer.
const (
	healthServing  = "serving"
	healthDraining = "draining"
	healthDegraded = "degraded"
)

// Where problems come from.
const (
	problemState  = "state directory"
	problemSocket = "socket"
	problemAudit  = "audit log"
	problemConfig = "configuration"
)

// health collects what does not work and goes on all the same.
type health struct {
	mu       sync.Mutex
	problems map[string]string // by where they come from
}

// set notes a problem, or with nil that there is none any more.
func (h *health) set(where string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		delete(h.problems, where)
		return
	}
	if h.problems == nil {
		h.problems = map[string]string{}
	}
	h.problems[where] = where + ": " + err.Error()
}

// list returns them in a fixed order.
func (h *health) list() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]string, 0, len(h.problems))
	for _, p := range h.problems {
		all = append(all, p)
	}
	slices.Sort(all)
	return all
}

// well says how the daemon is.
func (d *daemon) well() (status string, problems []string) {
	d.health.set(problemAudit, d.audit.trouble())
	problems = d.health.list()
	switch info, err := d.sup.As(0).Info(d.ctx); {
	case err != nil:
		return healthDegraded, append(problems, problemState+": "+err.Error())
	case len(problems) > 0:
		return healthDegraded, problems
	case info.Draining:
		return healthDraining, problems
	}
	return healthServing, problems
}

func (d *daemon) serverHealth(context.Context) server.Health {
	status, problems := d.well()
	return server.Health{Status: status, Problems: problems}
}
