// Package admission decides when an execution may start: no more than so many
// at once, no more memory promised than the host can give, the rest in a
// bounded queue in an order that is fair between owners. It knows no kernel and
// starts nothing.
package admission

import (
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/capsule-run/capsule/spec/fault"
)

// Limits bound what runs and waits.
type Limits struct {
	// MaxConcurrent is how many executions run at once; 0: any number.
	MaxConcurrent int
	// MemoryBudget is the sum of the memory limits of those that run, in bytes;
	// 0: any amount.
	MemoryBudget int64
	// MaxQueued is how many wait; 0: none, what cannot run at once is refused.
	// An owner of whom nobody waits gets one place even in a full queue: the
	// others cannot shut him out by filling it.
	MaxQueued int
}

// Bounds of the estimate that a refusal carries.
const (
	minRetry     = 100 * time.Millisecond
	maxRetry     = time.Minute
	unknownRetry = time.Second
)

const (
	// patience is how many others may start while a ticket whose turn it is
	// waits for memory. Then nothing starts until there is enough for it.
	patience = 8
	// window is how many releases the estimate looks back.
	window = 32
)

// Queue admits executions. All methods may be called concurrently and return
// at once.
type Queue struct {
	mu       sync.Mutex
	limits   Limits
	draining bool
	running  int
	queued   int
	memory   int64
	// waiting has the tickets of each owner in order of arrival; turns has the
	// owners with waiting tickets, the one whose turn it is first.
	waiting map[uint32][]*Ticket
	turns   []uint32
	shares  map[uint32]share
	// releases are the times of the last ones, the oldest first.
	releases []time.Time
	now      func() time.Time
}

// New returns an empty queue.
func New(l Limits) *Queue {
	return &Queue{limits: l, waiting: map[uint32][]*Ticket{}, shares: map[uint32]share{}, now: time.Now}
}

// state of a ticket.
type state int

const (
	stateQueued state = iota
	stateAdmitted
	stateReleased
)

// Ticket is an execution's place: in the queue, then among those that run.
type Ticket struct {
	queue  *Queue
	owner  uint32
	memory int64
	ready  chan struct{}
	// The queue's mutex guards what follows.
	state state
	// overtaken counts who started while this ticket had its turn and no room.
	overtaken int
}

// Ready is closed when the execution may start. It stays open when the ticket
// is released while it waits.
func (t *Ticket) Ready() <-chan struct{} { return t.ready }

// Admit asks for a place for an execution with a memory limit, in bytes. The
// ticket is ready or waits; it must be released. Errors: OutOfRange on
// /resources/memory_bytes when the limit is negative or above the whole budget;
// TooManyExecutions when the queue is full or drains, with the detail
// retry_after_ms, 100..60000.
func (q *Queue) Admit(owner uint32, memory int64) (*Ticket, error) {
	return q.AdmitWithin(owner, memory, Bounds{})
}

// AdmitWithin is Admit with bounds for the owner, beyond which it is
// TooManyExecutions too.
func (q *Queue) AdmitWithin(owner uint32, memory int64, b Bounds) (*Ticket, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.draining {
		f := fault.New(fault.TooManyExecutions, "admit execution", "the supervisor is about to stop and starts nothing more").
			WithHint("Wait for its successor.")
		f.Details = map[string]any{"retry_after_ms": maxRetry.Milliseconds(), "draining": true}
		return nil, f
	}
	if memory < 0 || q.limits.MemoryBudget > 0 && memory > q.limits.MemoryBudget {
		return nil, q.neverFits(memory)
	}
	if f := q.beyond(owner, memory, b); f != nil {
		return nil, f
	}
	t := &Ticket{queue: q, owner: owner, memory: memory, ready: make(chan struct{})}
	alone := len(q.waiting[owner]) == 0
	q.enqueue(t)
	q.dispatch()
	if t.state == stateQueued && q.queued > q.limits.MaxQueued && (!alone || q.limits.MaxQueued <= 0) {
		q.withdraw(t)
		return nil, q.full()
	}
	q.count(t, 1)
	return t, nil
}

// Adopt gives a place to an execution that runs already, whatever the bounds.
func (q *Queue) Adopt(owner uint32, memory int64) *Ticket {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := &Ticket{queue: q, owner: owner, memory: max(memory, 0), ready: make(chan struct{})}
	q.admit(t)
	q.count(t, 1)
	return t
}

// Release gives the place back, among those that run or in the queue. Repeated
// it does nothing.
func (t *Ticket) Release() {
	q := t.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	switch t.state {
	case stateReleased:
		return
	case stateAdmitted:
		q.running--
		q.memory -= t.memory
		if len(q.releases) == window {
			q.releases = slices.Delete(q.releases, 0, 1)
		}
		q.releases = append(q.releases, q.now())
	case stateQueued:
		q.withdraw(t)
	}
	t.state = stateReleased
	q.count(t, -1)
	q.dispatch()
}

// SetLimits changes the bounds. What runs goes on. What waits keeps its place;
// a ticket above a smaller budget starts when nothing else runs.
func (q *Queue) SetLimits(l Limits) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.limits = l
	q.dispatch()
}

// Drain refuses new executions from now on. Those that wait were promised a
// place and get it.
func (q *Queue) Drain() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.draining = true
}

// Snapshot is the queue at one instant.
type Snapshot struct {
	Limits Limits
	// Running and Queued count tickets; Memory is promised to the running ones, in bytes.
	Running, Queued int
	Memory          int64
	Draining        bool
}

// Snapshot returns the numbers of now.
func (q *Queue) Snapshot() Snapshot {
	q.mu.Lock()
	defer q.mu.Unlock()
	return Snapshot{Limits: q.limits, Running: q.running, Queued: q.queued, Memory: q.memory, Draining: q.draining}
}

// enqueue puts t behind its owner's other tickets, and an owner who had none
// behind the other owners.
func (q *Queue) enqueue(t *Ticket) {
	if len(q.waiting[t.owner]) == 0 {
		q.turns = append(q.turns, t.owner)
	}
	q.waiting[t.owner] = append(q.waiting[t.owner], t)
	q.queued++
}

// withdraw takes t out of the queue.
func (q *Queue) withdraw(t *Ticket) {
	own := q.waiting[t.owner]
	own = slices.Delete(own, slices.Index(own, t), slices.Index(own, t)+1)
	q.waiting[t.owner] = own
	q.queued--
	if len(own) == 0 {
		delete(q.waiting, t.owner)
		i := slices.Index(q.turns, t.owner)
		q.turns = slices.Delete(q.turns, i, i+1)
	}
}

// dispatch admits tickets while there is room: the first one of each owner in
// turn, and past those whose memory is not free, up to their patience.
func (q *Queue) dispatch() {
	for q.queued > 0 && (q.limits.MaxConcurrent <= 0 || q.running < q.limits.MaxConcurrent) {
		next := -1
		for i, owner := range q.turns {
			head := q.waiting[owner][0]
			if q.fits(head) {
				next = i
				break
			}
			if head.overtaken >= patience {
				return
			}
		}
		if next < 0 {
			return
		}
		for _, owner := range q.turns[:next] {
			q.waiting[owner][0].overtaken++
		}
		owner := q.turns[next]
		t := q.waiting[owner][0]
		q.withdraw(t)
		q.admit(t)
		// Its next turn comes after the others'.
		if i := slices.Index(q.turns, owner); i >= 0 {
			q.turns = append(slices.Delete(q.turns, i, i+1), owner)
		}
	}
}

// fits tells whether the memory of t is free, or t would run alone.
func (q *Queue) fits(t *Ticket) bool {
	return q.limits.MemoryBudget <= 0 || q.running == 0 || t.memory <= q.limits.MemoryBudget-q.memory
}

func (q *Queue) admit(t *Ticket) {
	t.state = stateAdmitted
	q.running++
	q.memory += t.memory
	close(t.ready)
}

func (q *Queue) neverFits(memory int64) *fault.Fault {
	message := strconv.FormatInt(memory, 10) + " is above the budget of this supervisor, " + strconv.FormatInt(q.limits.MemoryBudget, 10)
	if memory < 0 {
		message = strconv.FormatInt(memory, 10) + " is negative"
	}
	f := fault.New(fault.OutOfRange, "admit execution", message).WithField("/resources/memory_bytes")
	f.Details = map[string]any{"memory_budget_bytes": q.limits.MemoryBudget}
	return f
}

func (q *Queue) full() *fault.Fault {
	f := fault.New(fault.TooManyExecutions, "admit execution",
		strconv.Itoa(q.running)+" run and "+strconv.Itoa(q.queued)+" wait").WithHint(q.hint())
	f.Details = map[string]any{
		"retry_after_ms": q.retryAfter().Milliseconds(),
		"running":        q.running, "queued": q.queued,
		"max_concurrent": q.limits.MaxConcurrent, "max_queued": q.limits.MaxQueued, "memory_budget_bytes": q.limits.MemoryBudget,
	}
	return f
}

// hint is what people are told of retryAfter.
func (q *Queue) hint() string {
	return "Retry in " + q.retryAfter().Round(100*time.Millisecond).String() + "."
}

// retryAfter is how long it takes on average until a place is free: the time
// from the oldest remembered release until now, by their number. The time since
// the last one counts, so the estimate grows while nothing ends.
func (q *Queue) retryAfter() time.Duration {
	if len(q.releases) == 0 {
		return unknownRetry
	}
	mean := q.now().Sub(q.releases[0]) / time.Duration(len(q.releases))
	return min(max(mean, minRetry), maxRetry)
}
