package supervisor

import (
	"context"

	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
)

// cancelQueued ends an execution that waits for its turn, if the signal ends
// anything. waits is false when it waits no more.
func (c *caller) cancelQueued(ctx context.Context, e *entry, deadly bool) (waits, ended bool, err error) {
	m := c.s.minder(e.summary.ID)
	switch {
	case m == nil && e.summary.Status == api.StatusQueued:
		return c.s.withdraw(e.dir, deadly)
	case m == nil || !m.queued():
		return false, false, nil
	case !deadly:
		return true, false, nil
	}
	m.cancel()
	select {
	case <-m.started: // or it never will be
		return isClosed(m.done), true, nil
	case <-ctx.Done():
		return true, false, fault.Wrap(fault.Cancelled, "signal the execution", ctx.Err())
	}
}

// withdraw ends an execution that waits and that nobody minds: its daemon is
// dead, or whoever started it died before its shim was there.
func (s *Supervisor) withdraw(dir layout.Dir, deadly bool) (waits, ended bool, err error) {
	lock, err := lockDead(dir, false)
	if err != nil {
		return false, false, nil // somebody has it; its shim may be starting
	}
	defer lock.Close()
	rec, err := shimapi.ReadRecord(dir)
	if err != nil || !waiting(dir) {
		return false, false, nil
	}
	if !deadly {
		return true, false, nil
	}
	err = layout.WriteFile(dir.Result(), cancelledInQueue(rec).Encode(false))
	return true, err == nil, err
}
