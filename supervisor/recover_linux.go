package supervisor

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/spec"
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
// left. Those that waited for their turn come last and in their order, when it
// is known what runs. What it does not reach before ctx is done is left to
// Housekeep.
func (s *Supervisor) Recover(ctx context.Context) (Recovered, error) { return s.takeOver(ctx, true) }

// takeOver is Recover; tell says whether damage to those that live is new.
func (s *Supervisor) takeOver(ctx context.Context, tell bool) (Recovered, error) {
	entries, err := os.ReadDir(s.state.Executions())
	if err != nil {
		return Recovered{}, fault.Wrap(fault.IO, "read executions", err)
	}
	var (
		r      Recovered
		queued []*recovery
		errs   []error
		mu     sync.Mutex
		wg     sync.WaitGroup
	)
	slots := make(chan struct{}, recoverAtOnce)
	for _, entry := range entries {
		id := entry.Name()
		if _, err := executionID(id); err != nil || s.minds(id) {
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			errs = append(errs, fault.Wrap(fault.SetupTimeout, "recover", ctx.Err()))
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			one, err := s.recoverOne(id, tell)
			mu.Lock()
			defer mu.Unlock()
			r.count(one)
			if one.kind == api.EventQueued {
				queued = append(queued, &one)
			}
			if err != nil {
				errs = append(errs, err)
			}
		})
	}
	wg.Wait()
	s.requeue(queued)
	return r, errors.Join(errs...)
}

// recovery is what was done with one execution.
type recovery struct {
	kind string // the type of the event that tells so; empty: there was nothing to do
	rec  *shimapi.Record
	lock *os.File // of one that waits
}

func (r *Recovered) count(one recovery) {
	switch one.kind {
	case api.EventRecovered:
		r.Live++
	case api.EventQueued:
		r.Queued++
	case api.EventCollected:
		r.Collected++
	case api.EventLost:
		r.Lost++
	}
	if one.rec != nil && one.rec.KillOnDisconnect {
		r.Owned = append(r.Owned, one.rec.ExecutionID)
	}
}

// requeue lets executions that waited wait again, the oldest first.
func (s *Supervisor) requeue(queued []*recovery) {
	slices.SortFunc(queued, func(a, b *recovery) int { return a.rec.Created.Compare(b.rec.Created) })
	for _, one := range queued {
		t, err := s.daemon.queue.Admit(one.rec.Owner, one.rec.MemoryBytes)
		if err != nil {
			t = s.daemon.queue.Adopt(one.rec.Owner, one.rec.MemoryBytes) // it was admitted once
		}
		s.daemon.mind(s, one.rec, nil, one.lock, &ticket{t}, nil)
	}
}

// recoverOne takes over one execution. One that waits it only locks.
func (s *Supervisor) recoverOne(id string, tell bool) (recovery, error) {
	dir := s.state.Execution(id)
	rec, err := shimapi.ReadRecord(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		if tell {
			s.emit(api.EventUnreadable, id, map[string]string{"record": "execution.json", "error": err.Error()})
		}
		rec = nil
	}
	lock, lockErr := lockDead(dir, false)
	for pause := shortPause; rec != nil && errors.Is(lockErr, errAlive) && waiting(dir) && pause < longPause/2; pause *= 2 {
		// Whoever only looks, a sweep for instance, holds the lock for a moment.
		time.Sleep(pause)
		lock, lockErr = lockDead(dir, false)
	}
	switch {
	case errors.Is(lockErr, os.ErrNotExist):
		return recovery{}, nil
	case errors.Is(lockErr, errAlive):
		if rec == nil || waiting(dir) || s.minds(id) {
			return recovery{}, nil // a foreground execution, one that nobody can know, or one that just begins
		}
		t := &ticket{s.daemon.queue.Adopt(rec.Owner, rec.MemoryBytes)}
		s.daemon.mind(s, rec, nil, nil, t, nil)
		s.emit(api.EventRecovered, id, nil)
		return recovery{kind: api.EventRecovered, rec: rec}, nil
	case lockErr != nil:
		return recovery{}, lockErr
	}
	if rec != nil && waiting(dir) {
		return recovery{kind: api.EventQueued, rec: rec, lock: lock}, nil
	}
	lock.Close()
	r, err := s.collect(id, false, remembered{})
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, errAlive) {
		return recovery{}, nil // a foreground execution, which the sweep removed
	}
	if r == nil || err != nil {
		return recovery{}, err
	}
	s.tellCollected(id, r)
	if r.Termination.Reason == spec.ReasonShimLost {
		return recovery{kind: api.EventLost}, nil
	}
	return recovery{kind: api.EventCollected}, nil
}

// recoverTime bounds Recover as a whole.
const recoverTime = 15 * time.Second

// RecoverAll is Recover within the time that a start may take.
func (s *Supervisor) RecoverAll(ctx context.Context) (Recovered, error) {
	ctx, cancel := context.WithTimeout(ctx, recoverTime)
	defer cancel()
	return s.Recover(ctx)
}
