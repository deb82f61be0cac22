package supervisor

import (
	"context"
	"os"
	"syscall"
	"time"

	shimv1 "github.com/capsule-run/capsule/shim/shimapi/v1/plain"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/history"
)

// caller is the supervisor as one uid sees it: root and the supervisor's own
// user see everything, others what they started.
type caller struct {
	s   *Supervisor
	uid uint32
}

// As is the supervisor's contract with the caller of that uid.
func (s *Supervisor) As(uid uint32) api.Supervisor { return &caller{s, uid} }

func (c *caller) owns(owner uint32) bool { return c.seesAll() || c.uid == owner }

func (c *caller) seesAll() bool { return c.uid == 0 || c.uid == uint32(os.Geteuid()) }

// find is Supervisor.find for what the caller may see. Without a daemon it is
// the caller that sees to what dead shims left.
func (c *caller) find(id string) (*entry, error) {
	e, err := c.s.find(id)
	if err != nil {
		return nil, err
	}
	if !c.owns(e.summary.Owner) {
		return nil, notFound(id)
	}
	return e, nil
}

// Start implements api.Supervisor.
func (c *caller) Start(_ context.Context, r *api.StartRequest) (*api.Started, error) {
	return c.s.launch(c.uid, r)
}

// Answer is for the server of a daemon: it waits for the end of an execution, and is the
// document of its response where that can be passed on as the shim has recorded it. Nil:
// it cannot, or the execution is not among those that live, or ctx is done; Wait tells.
func (s *Supervisor) Answer(ctx context.Context, uid uint32, id string) []byte {
	m := s.minder(id)
	if m == nil || !(&caller{s, uid}).owns(m.rec.Owner) {
		return nil
	}
	select {
	case <-m.answered:
		return m.held()
	case <-ctx.Done():
		return nil
	}
}

// Wait implements api.Supervisor.
func (c *caller) Wait(ctx context.Context, id string) (*spec.Response, error) {
	if m := c.s.minder(id); m != nil && c.owns(m.rec.Owner) {
		select {
		case <-m.done:
			return m.response, nil
		case <-ctx.Done():
			return nil, fault.Wrap(fault.Cancelled, "wait", ctx.Err())
		}
	}
	e, err := c.find(id)
	if err != nil {
		return nil, err
	}
	if e.foreground {
		return c.waitForeground(ctx, e)
	}
	for pause := shortPause; ; pause = min(2*pause, longPause) {
		if !e.summary.Live() {
			return c.s.response(e)
		}
		err := c.s.connected(ctx, e, func(shim shimv1.ShimClient) error {
			_, err := shim.Wait(ctx, &shimv1.WaitRequest{})
			return err
		})
		if err == nil {
			pause = shortPause
		}
		if err := c.again(ctx, id, pause); err != nil {
			return nil, err
		}
		if e, err = c.find(id); err != nil {
			return nil, err
		}
	}
}

// again pauses before the next look at an execution, and settles it when its
// shim is dead.
func (c *caller) again(ctx context.Context, id string, pause time.Duration) error {
	if !c.s.minds(id) {
		if _, err := c.s.collect(id, false, remembered{}); err == nil {
			return nil
		}
	}
	select {
	case <-time.After(pause):
		return nil
	case <-ctx.Done():
		return fault.Wrap(fault.Cancelled, "wait", ctx.Err())
	}
}

// Kill implements api.Supervisor.
func (c *caller) Kill(ctx context.Context, id string, sig syscall.Signal, all bool) (bool, error) {
	if !all && (sig < 1 || sig > 64) {
		return false, fault.New(fault.OutOfRange, "", "signal is not within 1..64").WithField("/signal")
	}
	e, err := c.find(id)
	if err != nil || !e.summary.Live() {
		return false, err
	}
	if waits, ended, err := c.cancelQueued(ctx, e, all || sig == syscall.SIGKILL || sig == syscall.SIGTERM || sig == syscall.SIGINT); waits || err != nil {
		return ended, err
	}
	delivered := false
	asked, cancel := context.WithTimeout(ctx, killPatience)
	defer cancel()
	err = c.s.connected(asked, e, func(shim shimv1.ShimClient) error {
		r, err := shim.Kill(asked, &shimv1.KillRequest{Signal: int32(sig), All: all})
		if err == nil {
			delivered = r.Delivered
		}
		return err
	})
	if err == nil {
		return delivered, nil
	}
	// It may have ended meanwhile; its shim may just be starting.
	now, findErr := c.find(id)
	if is(findErr, fault.NotFound) {
		return false, nil // nothing is kept of one in the foreground
	}
	if findErr != nil || !now.summary.Live() {
		return false, findErr
	}
	return false, fault.Wrap(fault.Unreachable, "signal the execution", err).WithHint("Its shim does not answer; try again, or remove it with force.")
}

// Events implements api.Supervisor.
func (c *caller) Events(ctx context.Context, after uint64, follow bool, f func(api.Event) error) error {
	if c.s.daemon == nil {
		return fault.New(fault.Unreachable, "", "only a daemon keeps events").WithHint("Start capsuled.")
	}
	return c.s.daemon.events.Follow(ctx, after, follow, func(e api.Event) error {
		switch {
		case c.seesAll():
		case e.ExecutionID == "":
			e.Attributes = nil // what is wrong with the configuration, say, is not everybody's
		case !c.owns(c.s.ownerOf(e)):
			return nil
		}
		return f(e)
	})
}

// ownerOf is who an event belongs to; root when its execution is forgotten.
func (s *Supervisor) ownerOf(e api.Event) uint32 {
	found, err := s.find(e.ExecutionID)
	if err != nil {
		return 0
	}
	return found.summary.Owner
}

// Prune implements api.Supervisor.
func (c *caller) Prune(_ context.Context, o *api.PruneOptions) (*api.Pruned, error) {
	if err := c.s.collectAll(); err != nil {
		return nil, err
	}
	var removed []string
	var freed int64
	err := c.s.history(func(h *history.Store) (err error) {
		removed, freed, err = h.Prune(o, c.owns)
		if c.s.daemon == nil {
			// A daemon does it when it keeps house. That the disk has no room for it
			// does not undo what was removed.
			_, _ = h.Compact()
		}
		return err
	})
	for _, id := range removed {
		c.s.emit(api.EventRemoved, id, map[string]string{"by": "prune"})
	}
	return &api.Pruned{Removed: len(removed), Bytes: freed}, err
}
