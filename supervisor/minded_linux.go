package supervisor

import (
	"errors"
	"os"
	"slices"
	"time"

	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/supervisor/api"
)

// What a daemon knows of the executions that it minds, without a look at the disk for
// each of them.

func (d *daemon) forget(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.remove(id)
}

// remove takes out who minds an execution, if somebody does. The caller holds mu.
func (d *daemon) remove(id string) {
	m := d.minders[id]
	if m == nil {
		return
	}
	delete(d.minders, id)
	at, _ := d.age(m)
	d.byAge = slices.Delete(d.byAge, at, at+1)
}

// age is where a minder stands in byAge, or belongs. The caller holds mu.
func (d *daemon) age(m *minder) (at int, there bool) {
	return slices.BinarySearchFunc(d.byAge, m, func(a, b *minder) int { return b.place().compare(a.place()) })
}

// minders are all of them, the newest first, and those of ids that none of them minds.
func (s *Supervisor) minders(ids []string) (all []*minder, others []string) {
	d := s.daemon
	if d == nil {
		return nil, ids
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	all = slices.Clone(d.byAge)
	slices.Reverse(all)
	return all, slices.DeleteFunc(ids, func(id string) bool { return d.minders[id] != nil })
}

// place is where the execution stands in a list.
func (m *minder) place() place { return place{m.rec.Created, m.rec.ExecutionID} }

// status is how far the execution is that has not ended, and since when it runs.
func (m *minder) status() (status string, started time.Time) {
	if m.queued() {
		return api.StatusQueued, time.Time{}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.runs.IsZero() {
		info, err := os.Stat(m.dir.Shim())
		if err != nil {
			return api.StatusStarting, time.Time{}
		}
		m.runs = info.ModTime()
	}
	return api.StatusRunning, m.runs
}

// entry is what inState finds, from memory as far as that has it. os.ErrNotExist: the
// execution is in the history.
func (m *minder) entry() (*entry, error) {
	id := m.rec.ExecutionID
	m.mu.Lock()
	rec := m.recorded
	m.mu.Unlock()
	var damaged error
	if rec == nil {
		if rec, damaged = shimapi.ReadRecord(m.dir); errors.Is(damaged, os.ErrNotExist) {
			return nil, damaged
		}
		if damaged != nil {
			rec = m.rec
		}
	}
	status, started := m.status()
	e := &entry{summary: summaryOf(rec, status), digest: rec.Digest, dir: m.dir, memory: rec.MemoryBytes, pids: rec.MaxPids, damaged: damaged}
	e.summary.Started = started
	if told := m.told(); told != nil {
		describe(&e.summary, told)
	} else if data, err := readResult(m.dir); err == nil {
		describe(&e.summary, decodeResult(id, rec.Created, data))
	}
	_, err := os.Lstat(m.dir.Record()) // last: it may go while the rest is looked at
	return e, err
}

// told is the response once there is one; nil before. Nobody changes it.
func (m *minder) told() *spec.Response {
	if !isClosed(m.done) && !isClosed(m.answered) {
		return nil
	}
	<-m.done // it comes right after the answer
	return m.response
}
