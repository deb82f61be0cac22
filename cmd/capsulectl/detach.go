package main

import (
	"context"
	"encoding/json"

	"github.com/capsule-run/capsule/supervisor/api"
)

// flusher is a supervisor behind a connection, which may still have to take the
// stdin of a large request.
type flusher interface {
	Flush(ctx context.Context) error
}

// detach starts an execution that outlives capsulectl and prints its id.
func (c *console) detach(ctx context.Context, inv *invocation, o *order, rep *reporter) int {
	l, err := c.connect(ctx, inv.address, inv.embedded, inv.rules)
	if err != nil {
		return rep.refuse(err)
	}
	defer l.close()
	// One that is not there yet would find Start when it comes, after the caller has given up.
	if err := answers(ctx, l.current()); err != nil {
		return rep.refuse(err)
	}
	start := o.start()
	start.StreamStdin = inv.stdin
	if start.ID == "" {
		start.ID = newUUID() // makes Start repeatable when the connection is lost
		inv.id = start.ID    // of a refusal too
	}
	var started *api.Started
	err = l.persist(ctx, func(s api.Supervisor) (err error) {
		started, err = s.Start(ctx, start)
		return err
	})
	if err != nil {
		return rep.refuse(err)
	}
	if f, ok := l.current().(flusher); ok {
		if err := f.Flush(ctx); err != nil {
			return rep.refuse(err)
		}
	}
	if !inv.jsonOutput {
		return c.print(started.ID)
	}
	document, err := json.Marshal(struct {
		ID string `json:"execution_id"`
	}{started.ID})
	if err != nil {
		return rep.refuse(err)
	}
	return rep.document(document, 0)
}
