package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/admission"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/events"
	"github.com/capsule-run/capsule/supervisor/history"
)

// keptEvents is how many events can be asked for later.
const keptEvents = 10_000

// DaemonOptions configure a supervisor that stays.
type DaemonOptions struct {
	Options
	// Admission bounds what runs at a time; the zero value bounds nothing.
	Admission admission.Limits
	// Retention bounds the history; the zero value keeps everything.
	Retention history.Limits
	// Pool bounds the sandboxes that are prepared ahead; the zero value: there are none.
	Pool PoolLimits
	// Log is told what happens; nil: nobody is.
	Log *slog.Logger
	// Version is what Info shows.
	Version string
}

// daemon is what a supervisor that stays has in addition: it minds every
// execution until that is in the history. All of it can be rebuilt from the
// state directory at any time.
type daemon struct {
	options DaemonOptions
	queue   *admission.Queue
	past    *history.Store
	events  *events.Log
	log     *slog.Logger
	started time.Time
	pool    *pool

	mu      sync.Mutex
	minders map[string]*minder // by id; guarded by mu
	byAge   []*minder          // the same, the newest last; guarded by mu
	closed  bool               // no minder begins any more; guarded by mu
	minding sync.WaitGroup
	// ctx ends when the supervisor closes; executions go on.
	ctx  context.Context
	stop context.CancelFunc
}

// NewDaemon is New for a process that stays. It opens the history, which no
// other process may hold, and begins with Recover.
func NewDaemon(o DaemonOptions) (*Supervisor, error) {
	s, err := New(o.Options)
	if err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	d := &daemon{options: o, queue: admission.New(o.Admission), log: o.Log, started: time.Now(), minders: map[string]*minder{}}
	d.ctx, d.stop = context.WithCancel(context.Background())
	s.retention = o.Retention
	h, err := s.openHistory()
	if err != nil {
		return nil, err
	}
	if d.events, err = events.New(h.DB(), keptEvents); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	d.past = h
	s.daemon = d
	d.pool = newPool(s, o.Pool)
	s.emit(api.EventStarting, "", map[string]string{"version": o.Version})
	if damaged := h.Damaged(); damaged != "" {
		s.emit(api.EventUnreadable, "", map[string]string{"record": "history", "set_aside": damaged})
	}
	if h.Cut() {
		s.emit(api.EventUnreadable, "", map[string]string{"record": "history", "error": historyCut})
	}
	return s, nil
}

// Close ends a daemon and leaves every execution running. It is called once.
func (s *Supervisor) Close() error {
	d := s.daemon
	if d == nil {
		return nil
	}
	s.Leave()
	d.events.Close()
	return d.past.Close()
}

// EndSoon keeps Housekeep and Compact, where they run, from taking longer than a
// stop may: the next daemon goes on where they end.
func (s *Supervisor) EndSoon() { s.daemon.past.EndSoon() }

// Leave stops following executions, which go on. When it returns nothing more
// happens: who reads the events then has all of this process's.
func (s *Supervisor) Leave() {
	d := s.daemon
	if d == nil {
		return
	}
	d.mu.Lock()
	again := d.closed
	d.closed = true
	d.mu.Unlock()
	if again {
		return
	}
	s.emit(api.EventStopping, "", nil)
	d.stop()
	d.minding.Wait()
	<-d.pool.done
}

// emit tells followers and the log of an event.
func (s *Supervisor) emit(kind, id string, attributes map[string]string) {
	d := s.daemon
	if d == nil {
		return
	}
	d.events.Append(api.Event{Time: time.Now().UTC(), Type: kind, ExecutionID: id, Attributes: attributes})
	args := make([]any, 0, 2+2*len(attributes))
	if id != "" {
		args = append(args, "execution_id", id)
	}
	for _, k := range slices.Sorted(maps.Keys(attributes)) {
		args = append(args, k, attributes[k])
	}
	level := slog.LevelInfo
	if kind == api.EventUnreadable || kind == api.EventLost {
		level = slog.LevelWarn
	}
	d.log.Log(context.Background(), level, kind, args...)
}

// mind follows an execution until it is in the history. lock is nil when its
// shim runs already; r is the shim that is ready for it, or nil, and has been told when
// mind returns; request is nil when it is not at hand.
func (d *daemon) mind(s *Supervisor, rec *shimapi.Record, request []byte, lock *os.File, t *ticket, r *ready) *minder {
	slim := *rec
	slim.Command, slim.Labels = nil, nil // up to megabytes, which the directory has
	m := &minder{s: s, rec: &slim, dir: s.state.Execution(rec.ExecutionID), lock: lock, ticket: t, ready: r, started: make(chan struct{}),
		answered: make(chan struct{}), done: make(chan struct{}), gone: make(chan struct{}), unwanted: make(chan struct{})}
	if request != nil {
		m.recorded, m.request = rec, request
	}
	if lock == nil {
		close(m.started)
	}
	if closed, known := d.enter(s, m); known != nil {
		return known
	} else if closed {
		go r.end() // the execution waits for the next supervisor
		return m
	}
	if r != nil {
		m.begin(d.ctx) // one message, which the change to another goroutine would hold up
	}
	go m.run()
	return m
}

// enter takes in who minds an execution, unless somebody does: known. With closed
// nothing begins any more, otherwise run is to be called.
func (d *daemon) enter(s *Supervisor, m *minder) (closed bool, known *minder) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if known := d.minders[m.rec.ExecutionID]; known != nil && m.lock == nil {
		m.ticket.release() // it was begun meanwhile
		return false, known
	}
	d.remove(m.rec.ExecutionID)
	d.minders[m.rec.ExecutionID] = m
	at, _ := d.age(m)
	d.byAge = slices.Insert(d.byAge, at, m)
	if m.queued() {
		s.emit(api.EventQueued, m.rec.ExecutionID, nil)
		m.letGo()
	}
	if !d.closed {
		d.minding.Add(1)
	}
	return d.closed, nil
}

// minder returns who minds an execution; nil: nobody.
func (s *Supervisor) minder(id string) *minder {
	if s.daemon == nil {
		return nil
	}
	s.daemon.mu.Lock()
	defer s.daemon.mu.Unlock()
	return s.daemon.minders[id]
}

func (s *Supervisor) minds(id string) bool { return s.minder(id) != nil }

// Housekeep takes over what nobody minds, removes what dead shims left and
// applies the retention. capsuled calls it now and then. What nobody minds was
// started without the daemon, or out of Recover's reach. owned are those among what
// it took over that end with their caller's connection.
func (s *Supervisor) Housekeep() (owned []string, err error) {
	err = s.collectAll()
	r, recoverErr := s.takeOver(s.daemon.ctx, false)
	if recoverErr != nil && s.daemon.ctx.Err() == nil {
		err = errors.Join(err, recoverErr)
	}
	removed, retainErr := s.daemon.past.Retain(time.Now())
	for _, id := range removed {
		s.emit(api.EventRemoved, id, map[string]string{"by": "retention"})
	}
	return r.Owned, errors.Join(err, retainErr)
}

// Compact gives the disk back what the history does not need any more, when that
// is much. capsuled calls it after Housekeep.
func (s *Supervisor) Compact() error {
	done, err := s.daemon.past.Compact()
	if done != nil {
		s.emit(api.EventCompacted, "", map[string]string{"before_bytes": strconv.FormatInt(done.Before, 10), "after_bytes": strconv.FormatInt(done.After, 10)})
	}
	return err
}

// Drain refuses new executions and waits until those that run have ended.
func (s *Supervisor) Drain(ctx context.Context) error {
	s.daemon.queue.Drain()
	for {
		s.daemon.mu.Lock()
		var any *minder
		for _, any = range s.daemon.minders {
			break
		}
		s.daemon.mu.Unlock()
		if any == nil {
			return nil
		}
		select {
		case <-any.gone:
		case <-ctx.Done():
			return fault.Wrap(fault.Cancelled, "drain", ctx.Err())
		}
	}
}

// SetLimits changes the bounds of admission; what runs is not touched.
func (s *Supervisor) SetLimits(l admission.Limits) {
	s.daemon.queue.SetLimits(l)
}

// cancelledInQueue is the response of an execution that was ended before it ran.
func cancelledInQueue(rec *shimapi.Record) *spec.Response {
	r := spec.Refused(rec.ExecutionID, fault.New(fault.Cancelled, "", "ended by the caller before the command ran"), rec.Created)
	r.Status, r.Termination.Reason = spec.StatusKilled, spec.ReasonKilledByCaller
	return r
}
