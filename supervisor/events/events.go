// Package events numbers what happens, keeps the newest of it and tells it to
// followers. The numbers are never used twice, also not after a crash.
package events

import (
	"context"
	"maps"
	"slices"
	"sort"
	"strconv"
	"sync"
	"time"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/history/guard"
)

// Missed is the type of an event that stands for events that are not kept any
// more. Its attribute count is how many numbers they had, its sequence the last
// of them. It is told to one follower and never kept.
const Missed = "events.missed"

// slice is how many events a follower takes from the ring at once.
const slice = 256

// Log is safe for concurrent use.
type Log struct {
	keep int

	mu sync.Mutex
	// ring has the newest events, the oldest at head.
	ring []api.Event
	head int
	// last is the number of the newest event, trimmed that of the newest one
	// that is not kept any more; 0: none.
	last, trimmed uint64
	// reserved is the last number that may be given out.
	reserved uint64
	closed   bool
	// changed is closed and replaced whenever something above changes.
	changed chan struct{}

	disk *disk
}

// New opens the log in db, or with nil one in memory only, that keeps so many
// events, at least 1. Numbers go on where they stopped; after a crash some are
// left out. Events that cannot be read are dropped; followers are told that
// they missed some. db must outlive the log. Errors: IO, StateUnreadable.
func New(db *guard.DB, keep int) (*Log, error) {
	l := &Log{keep: max(keep, 1), reserved: ^uint64(0), changed: make(chan struct{})}
	if db == nil {
		return l, nil
	}
	l.disk = &disk{db: db, log: l, keep: l.keep, wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	if err := l.disk.load(); err != nil {
		return nil, err
	}
	go l.disk.write()
	return l, nil
}

// Append gives e the next number, and the time of now if it has none, and tells
// it to the followers. It waits for nobody. The number is 0, and the event lost,
// when the log is closed, or when the disk has refused to reserve numbers for
// half a million events.
func (l *Log) Append(e api.Event) uint64 {
	e.Attributes = maps.Clone(e.Attributes)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.last >= l.reserved {
		return 0
	}
	// Under the lock, so that times rise with the numbers.
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	l.last++
	e.Sequence = l.last
	l.insert(e)
	close(l.changed)
	l.changed = make(chan struct{})
	if l.disk != nil {
		l.disk.nudge()
	}
	return l.last
}

// insert puts e into the ring, in place of the oldest one when it is full.
func (l *Log) insert(e api.Event) {
	if len(l.ring) < l.keep {
		l.ring = append(l.ring, e)
		return
	}
	l.trimmed = l.ring[l.head].Sequence
	l.ring[l.head] = e
	l.head = (l.head + 1) % l.keep
}

// at is the i-th oldest event of the ring.
func (l *Log) at(i int) *api.Event { return &l.ring[(l.head+i)%len(l.ring)] }

// after copies at most n events with numbers above sequence.
func (l *Log) after(sequence uint64, n int) []api.Event {
	first := sort.Search(len(l.ring), func(i int) bool { return l.at(i).Sequence > sequence })
	events := make([]api.Event, 0, min(n, len(l.ring)-first))
	for i := first; i < len(l.ring) && len(events) < n; i++ {
		events = append(events, *l.at(i))
	}
	return events
}

// Last is the number of the newest event; 0: there was none.
func (l *Log) Last() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// Follow calls f for every event with a number above after, in order; 0: from
// the oldest that is kept. Without follow it returns when it has told those of
// now; with it, when the log is closed. A follower that is slower than the ring
// turns gets an event Missed, then the oldest that is kept. f may keep the
// event, but must not change its attributes. Errors: those of f unchanged;
// OutOfRange on /after for a number that no event has had yet; Cancelled when
// ctx is done.
func (l *Log) Follow(ctx context.Context, after uint64, follow bool, f func(api.Event) error) error {
	l.mu.Lock()
	end := l.last
	l.mu.Unlock()
	if after > end {
		return fault.New(fault.OutOfRange, "follow events",
			strconv.FormatUint(after, 10)+" lies ahead: the newest event is "+strconv.FormatUint(end, 10)).WithField("/after").
			WithHint("The events were begun anew, or are another supervisor's; follow them from 0.")
	}
	started := after != 0
	for {
		if err := ctx.Err(); err != nil {
			return fault.Wrap(fault.Cancelled, "follow events", err)
		}
		l.mu.Lock()
		missed, events := l.missed(after, started), l.after(after, slice)
		changed, closed := l.changed, l.closed
		l.mu.Unlock()
		if missed != nil {
			events = slices.Insert(events, 0, *missed)
		}
		for _, e := range events {
			if !follow && e.Sequence > end {
				return nil
			}
			if err := f(e); err != nil {
				return err
			}
			after, started = e.Sequence, true
		}
		switch {
		case len(events) > 0:
		case closed || !follow:
			return nil
		default:
			select {
			case <-ctx.Done():
			case <-changed:
			}
		}
	}
}

// missed is the event for a follower that has seen up to after; nil: it missed
// nothing. One that has seen none asks for what is kept, and misses nothing.
func (l *Log) missed(after uint64, started bool) *api.Event {
	if !started || l.trimmed <= after {
		return nil
	}
	count := strconv.FormatUint(l.trimmed-after, 10)
	return &api.Event{Sequence: l.trimmed, Time: time.Now(), Type: Missed, Attributes: map[string]string{"count": count}}
}

// Close ends the followers once they have been told what is kept, and returns
// when all of it is on the disk, or after five seconds. Repeated it does
// nothing. Errors: IO, when events could not be written.
func (l *Log) Close() error {
	l.mu.Lock()
	first := !l.closed
	l.closed = true
	if first {
		close(l.changed)
		l.changed = make(chan struct{})
	}
	l.mu.Unlock()
	if l.disk == nil || !first {
		return nil
	}
	return l.disk.close()
}
