package supervisor

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	shimv1 "github.com/capsule-run/capsule/shim/shimapi/v1/plain"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
)

// foregroundPatience is how long the shim of a foreground execution may take to
// tell what it runs. One that is stopped is shown without.
const foregroundPatience = 500 * time.Millisecond

// foreground asks the shim of a foreground execution, of which nothing is
// recorded: its caller, another process without a daemon, has no time for that.
// os.ErrNotExist: there is none, it has not begun to run, or it has ended.
func (s *Supervisor) foreground(id string) (*entry, error) {
	dir := s.state.Execution(id)
	info, err := os.Lstat(dir.Shim())
	if err != nil {
		return nil, os.ErrNotExist
	}
	c, err := dial(dir)
	for pause := shortPause; err != nil; pause *= 2 {
		if pause > foregroundPatience/2 || !alive(dir) {
			return nil, os.ErrNotExist // its shim is dead, and a sweep comes
		}
		time.Sleep(pause) // the socket comes right after shim.json
		c, err = dial(dir)
	}
	defer c.Close()
	e := &entry{dir: dir, foreground: true, summary: api.Summary{ID: id, Status: api.StatusRunning, Owner: uint32(os.Geteuid()),
		Created: info.ModTime().UTC(), Started: info.ModTime().UTC(), KillOnDisconnect: true}}
	ctx, cancel := context.WithTimeout(context.Background(), foregroundPatience)
	defer cancel()
	r, err := c.shim.State(ctx, &shimv1.StateRequest{Request: true})
	if err != nil {
		if !alive(dir) {
			return nil, os.ErrNotExist
		}
		return e, nil
	}
	if r.State == "ended" || r.ExecutionId != id {
		return nil, os.ErrNotExist
	}
	if r.Created > 0 {
		e.summary.Created = time.Unix(0, r.Created).UTC()
	}
	if req, err := spec.DecodeResolved(r.Request); err == nil {
		e.request = req
		e.summary.Command, e.summary.Labels = req.Command, req.Labels
		e.memory, e.pids = req.Resources.MemoryBytes, req.Resources.MaxPids
	}
	return e, nil
}

// inForeground are those of ids that are foreground executions and pass a filter.
func (c *caller) inForeground(ids []string, f *api.Filter) (found []*entry) {
	if !c.owns(uint32(os.Geteuid())) {
		return nil
	}
	var mu sync.Mutex
	var asked sync.WaitGroup
	slots := make(chan struct{}, shimsAtOnce)
	for _, id := range ids {
		slots <- struct{}{}
		asked.Go(func() {
			defer func() { <-slots }()
			e, err := c.s.foreground(id)
			if err != nil || !passes(&e.summary, f) {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			found = append(found, e)
		})
	}
	asked.Wait()
	return found
}

// waitForeground waits for a foreground execution. Its result is its caller's, and
// is not kept: only who waits while it runs gets it too.
func (c *caller) waitForeground(ctx context.Context, e *entry) (*spec.Response, error) {
	var answer *shimv1.WaitResponse
	err := c.s.connected(ctx, e, func(shim shimv1.ShimClient) (err error) {
		answer, err = shim.Wait(ctx, &shimv1.WaitRequest{})
		return err
	})
	if ctx.Err() != nil {
		return nil, fault.Wrap(fault.Cancelled, "wait", ctx.Err())
	}
	if err == nil && len(answer.Response) == 0 {
		answer.Response, err = readResult(e.dir)
	}
	if err == nil {
		return decodeResult(e.summary.ID, e.summary.Created, answer.Response), nil
	}
	return nil, errors.Join(fault.New(fault.NotFound, "wait for the execution", "its result went to its caller").
		WithHint("It is a foreground execution: start it with run -d to have its result kept."), err)
}
