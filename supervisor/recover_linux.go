package supervisor

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
)

// recoverAtOnce is how many executions are looked at at a time.
const recoverAtOnce = 8

// Recovered counts what Recover found.
type Recovered struct {
	Live      int `json:"live"`      // shims that run; they are minded again
	Queued    int `json:"queued"`    // waited for their turn, and do again
	Collected int `json:"collected"` // had ended with a result
	Lost      int `json:"lost"`      // their shim had died without one
	// Owned are the living ones that end with their caller's connection.
	Owned []string `json:"-"`
}

// Recover takes over what an earlier supervisor left: it minds living
// executions again, collects those that have ended, and reaps what dead shims
// left. What it does not reach before ctx is done is left to Housekeep.
func (s *Supervisor) Recover(ctx context.Context) (Recovered, error) {
	entries, err := os.ReadDir(s.state.Executions())
	if err != nil {
		return Recovered{}, fault.Wrap(fault.IO, "read executions", err)
	}
	var (
		r    Recovered
		errs []error
		mu   sync.Mutex
		wg   sync.WaitGroup
	)
	slots := make(chan struct{}, recoverAtOnce)
	for _, entry := range entries {
		id := entry.Name()
		if _, err := executionID(id); err != nil {
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			wg.Wait()
			return r, fault.Wrap(fault.SetupTimeout, "recover", errors.Join(append(errs, ctx.Err())...))
		}
		wg.Go(func() {
			defer func() { <-slots }()
			kind, owned, err := s.recoverOne(id)
			mu.Lock()
			defer mu.Unlock()
			switch kind {
			case api.EventRecovered:
				r.Live++
			case api.EventQueued:
				r.Queued++
			case api.EventCollected:
				r.Collected++
			case api.EventLost:
				r.Lost++
			}
			if owned {
				r.Owned = append(r.Owned, id)
			}
			if err != nil {
				errs = append(errs, err)
			}
		})
	}
	wg.Wait()
	return r, errors.Join(errs...)
}

// recoverOne takes over one execution and returns the type of the event that
// tells so; empty: there was nothing to do.
func (s *Supervisor) recoverOne(id string) (kind string, owned bool, err error) {
	dir := s.state.Execution(id)
	rec, err := shimapi.ReadRecord(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.emit(api.EventUnreadable, id, map[string]string{"record": "execution.json", "error": err.Error()})
		rec = nil
	}
	lock, lockErr := lockDead(dir, false)
	switch {
	case errors.Is(lockErr, os.ErrNotExist):
		return "", false, nil
	case errors.Is(lockErr, errAlive):
		if rec == nil {
			return "", false, nil // a foreground execution, or one that nobody can know
		}
		t := &ticket{s.daemon.queue.Adopt(rec.Owner, rec.MemoryBytes)}
		s.daemon.mind(s, rec, nil, t)
		s.emit(api.EventRecovered, id, nil)
		return api.EventRecovered, rec.KillOnDisconnect, nil
	case lockErr != nil:
		return "", false, lockErr
	}
	if rec != nil && waiting(dir) {
		t, err := s.daemon.queue.Admit(rec.Owner, rec.MemoryBytes)
		if err != nil {
			t = s.daemon.queue.Adopt(rec.Owner, rec.MemoryBytes) // it was admitted once
		}
		s.daemon.mind(s, rec, lock, &ticket{t})
		return api.EventQueued, rec.KillOnDisconnect, nil
	}
	lock.Close()
	r, err := s.collect(id, false)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, errAlive) {
		return "", false, nil // a foreground execution, which the sweep removed
	}
	if r == nil || err != nil {
		return "", false, err
	}
	s.tellCollected(id, r)
	if r.Termination.Reason == "shim_lost" {
		return api.EventLost, false, nil
	}
	return api.EventCollected, false, nil
}

// recoverTime bounds Recover as a whole.
const recoverTime = 15 * time.Second

// RecoverAll is Recover within the time that a start may take.
func (s *Supervisor) RecoverAll(ctx context.Context) (Recovered, error) {
	ctx, cancel := context.WithTimeout(ctx, recoverTime)
	defer cancel()
	return s.Recover(ctx)
}
