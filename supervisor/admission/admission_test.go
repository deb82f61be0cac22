package admission

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/capsule-run/capsule/spec/fault"
)

func ready(t *Ticket) bool {
	select {
	case <-t.Ready():
		return true
	default:
		return false
	}
}

func admit(t *testing.T, q *Queue, owner uint32, memory int64) *Ticket {
	t.Helper()
	ticket, err := q.Admit(owner, memory)
	if err != nil {
		t.Fatal(err)
	}
	return ticket
}

// refused fails unless err is a fault with this code, which it returns.
func refused(t *testing.T, err error, code fault.Code) *fault.Fault {
	t.Helper()
	var f *fault.Fault
	if !errors.As(err, &f) || f.Code != code {
		t.Fatalf("have %v, want %s", err, code)
	}
	return f
}

func TestBounds(t *testing.T) {
	for _, c := range []struct {
		name    string
		limits  Limits
		memory  []int64
		running int
		queued  int
		refused int
	}{
		{"no bounds", Limits{}, []int64{1, math.MaxInt64 / 4, 3}, 3, 0, 0},
		{"concurrent", Limits{MaxConcurrent: 2, MaxQueued: 1}, []int64{0, 0, 0, 0}, 2, 1, 1},
		{"memory", Limits{MemoryBudget: 10, MaxQueued: 9}, []int64{4, 6, 1}, 2, 1, 0},
		{"memory of one", Limits{MemoryBudget: 10, MaxQueued: 9}, []int64{10, 10}, 1, 1, 0},
		{"no queue", Limits{MaxConcurrent: 1}, []int64{0, 0}, 1, 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := New(c.limits)
			n := 0
			for _, m := range c.memory {
				if _, err := q.Admit(1, m); err != nil {
					refused(t, err, fault.TooManyExecutions)
					n++
				}
			}
			if s := q.Snapshot(); s.Running != c.running || s.Queued != c.queued || n != c.refused {
				t.Errorf("%+v, refused %d", s, n)
			}
		})
	}
}

func TestNeverFits(t *testing.T) {
	q := New(Limits{MemoryBudget: 10, MaxQueued: 5})
	for _, memory := range []int64{11, math.MaxInt64, -1} {
		_, err := q.Admit(1, memory)
		if f := refused(t, err, fault.OutOfRange); f.Field != "/resources/memory_bytes" || f.Details["memory_budget_bytes"] != int64(10) {
			t.Errorf("%+v", f)
		}
	}
	if s := q.Snapshot(); s.Queued != 0 || s.Memory != 0 {
		t.Errorf("%+v", s)
	}
}

func TestReleaseIsIdempotent(t *testing.T) {
	q := New(Limits{MaxConcurrent: 1, MaxQueued: 3})
	first, second, third := admit(t, q, 1, 5), admit(t, q, 1, 5), admit(t, q, 1, 5)
	second.Release()
	second.Release()
	first.Release()
	first.Release()
	if ready(second) || !ready(third) {
		t.Error("a withdrawn ticket was admitted, or the next one not")
	}
	if s := q.Snapshot(); s.Running != 1 || s.Queued != 0 || s.Memory != 5 {
		t.Errorf("%+v", s)
	}
	third.Release()
	if s := q.Snapshot(); s.Running != 0 || s.Memory != 0 {
		t.Errorf("%+v", s)
	}
}

// TestTurns has one owner flood the queue: the others come in between, each
// owner's own in order.
func TestTurns(t *testing.T) {
	q := New(Limits{MaxConcurrent: 1, MaxQueued: 20})
	running := admit(t, q, 9, 0)
	var waiting []*Ticket
	var names []string
	for _, c := range []struct {
		owner uint32
		count int
	}{{1, 4}, {2, 2}, {3, 1}} {
		for n := range c.count {
			waiting = append(waiting, admit(t, q, c.owner, 0))
			names = append(names, fmt.Sprintf("%d.%d", c.owner, n))
		}
	}
	var order []string
	for len(waiting) > 0 {
		running.Release()
		i := slices.IndexFunc(waiting, ready)
		if i < 0 {
			t.Fatal("nobody is admitted")
		}
		order = append(order, names[i])
		running = waiting[i]
		waiting, names = slices.Delete(waiting, i, i+1), slices.Delete(names, i, i+1)
	}
	if want := []string{"1.0", "2.0", "3.0", "1.1", "2.1", "1.2", "1.3"}; !slices.Equal(order, want) {
		t.Errorf("have %v, want %v", order, want)
	}
}

// TestLargeRequestIsNotStarved keeps small ones coming that always fit: after a
// while they have to wait for the large one.
func TestLargeRequestIsNotStarved(t *testing.T) {
	q := New(Limits{MemoryBudget: 10, MaxQueued: 1000})
	small := []*Ticket{admit(t, q, 1, 4), admit(t, q, 1, 4)}
	large := admit(t, q, 2, 10)
	for range 100 {
		if ready(large) {
			break
		}
		// The next small one is there before the oldest ends.
		small = append(small, admit(t, q, 1, 4))
		i := slices.IndexFunc(small, ready)
		if i < 0 {
			t.Fatal("nothing runs")
		}
		small[i].Release()
		small = slices.Delete(small, i, i+1)
	}
	if !ready(large) {
		t.Error("100 small ones went past")
	}
	if s := q.Snapshot(); s.Memory != 10 || s.Running != 1 {
		t.Errorf("%+v", s)
	}
}

// TestSmallOnesGoPast: a large one at the head does not hold up others at once.
func TestSmallOnesGoPast(t *testing.T) {
	q := New(Limits{MemoryBudget: 10, MaxQueued: 1000})
	admit(t, q, 1, 5)
	admit(t, q, 2, 10)
	if !ready(admit(t, q, 1, 3)) {
		t.Error("a small one waits behind a large one of another owner")
	}
	if ready(admit(t, q, 2, 1)) {
		t.Error("a ticket went past another one of its owner")
	}
}

func TestAdopt(t *testing.T) {
	q := New(Limits{MaxConcurrent: 1, MemoryBudget: 10, MaxQueued: 5})
	one, two := q.Adopt(1, 100), q.Adopt(2, 100)
	if !ready(one) || !ready(two) {
		t.Fatal("what runs already has to wait")
	}
	waiting := admit(t, q, 3, 10)
	one.Release()
	if ready(waiting) {
		t.Error("admitted above the bounds")
	}
	two.Release()
	if !ready(waiting) {
		t.Error("not admitted although nothing runs")
	}
}

func TestSetLimits(t *testing.T) {
	q := New(Limits{MaxConcurrent: 1, MemoryBudget: 10, MaxQueued: 5})
	first, second, third := admit(t, q, 1, 2), admit(t, q, 1, 9), admit(t, q, 2, 2)
	q.SetLimits(Limits{MaxConcurrent: 2, MemoryBudget: 5, MaxQueued: 5})
	if ready(second) || !ready(third) {
		t.Error("the new bounds are not in force")
	}
	first.Release()
	if ready(second) {
		t.Error("a ticket above the smaller budget started beside another one")
	}
	third.Release()
	if !ready(second) {
		t.Error("a ticket above the smaller budget was forgotten")
	}
	_, err := q.Admit(1, 9)
	refused(t, err, fault.OutOfRange)
}

func TestDrain(t *testing.T) {
	q := New(Limits{MaxConcurrent: 1, MaxQueued: 5})
	first, second := admit(t, q, 1, 0), admit(t, q, 1, 0)
	q.Drain()
	_, err := q.Admit(1, 0)
	if f := refused(t, err, fault.TooManyExecutions); f.Details["draining"] != true || !q.Snapshot().Draining {
		t.Errorf("%+v", f)
	}
	first.Release()
	if !ready(second) {
		t.Error("what waited before the drain got no place")
	}
}

// TestFullQueueHasAPlaceForOthers: who has nothing waiting gets in.
func TestFullQueueHasAPlaceForOthers(t *testing.T) {
	q := New(Limits{MaxConcurrent: 1, MaxQueued: 2})
	for range 3 {
		admit(t, q, 1, 0)
	}
	_, err := q.Admit(1, 0)
	refused(t, err, fault.TooManyExecutions)
	admit(t, q, 2, 0)
	_, err = q.Admit(2, 0)
	refused(t, err, fault.TooManyExecutions)
}

func TestRetryAfter(t *testing.T) {
	now := time.Unix(1000, 0)
	q := New(Limits{MaxConcurrent: 1})
	q.now = func() time.Time { return now }
	retry := func() any {
		t.Helper()
		_, err := q.Admit(1, 0)
		return refused(t, err, fault.TooManyExecutions).Details["retry_after_ms"]
	}
	running := admit(t, q, 1, 0)
	if r := retry(); r != int64(1000) {
		t.Errorf("nothing is known: %v", r)
	}
	for range 50 {
		now = now.Add(500 * time.Millisecond)
		running.Release()
		running = admit(t, q, 1, 0)
	}
	now = now.Add(500 * time.Millisecond)
	if r := retry(); r != int64(500) {
		t.Errorf("one every 500 ms: %v", r)
	}
	now = now.Add(16 * time.Second)
	if r := retry(); r != int64(1000) {
		t.Errorf("nothing for 16.5 s: %v", r)
	}
	now = now.Add(24 * time.Hour)
	if r := retry(); r != int64(60000) {
		t.Errorf("nothing for a day: %v", r)
	}
	for range 50 {
		now = now.Add(time.Millisecond)
		running.Release()
		running = admit(t, q, 1, 0)
	}
	if r := retry(); r != int64(100) {
		t.Errorf("one every millisecond: %v", r)
	}
}

// TestProperties runs random owners against random limits: the bounds hold at
// every instant, everybody who was accepted starts, and nothing is left over.
func TestProperties(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 1))
		limits := Limits{MaxConcurrent: 1 + random.IntN(6), MemoryBudget: int64(10 + random.IntN(50)), MaxQueued: 4 + random.IntN(40)}
		const owners = 5
		q := New(limits)
		var group sync.WaitGroup
		for owner := range uint32(owners) {
			random := rand.New(rand.NewPCG(seed, uint64(owner)+2))
			group.Go(func() {
				// Several tickets of one owner are under way at once.
				for range 60 {
					ticket, err := q.Admit(owner, random.Int64N(limits.MemoryBudget+1))
					if err != nil {
						if !errors.Is(err, &fault.Fault{Code: fault.TooManyExecutions}) {
							t.Error(err)
						}
						continue
					}
					if random.IntN(10) == 0 {
						ticket.Release()
						continue
					}
					group.Go(func() {
						select {
						case <-ticket.Ready():
						case <-time.After(30 * time.Second):
							t.Errorf("seed %d: a ticket of owner %d never started: %+v", seed, owner, q.Snapshot())
						}
						s := q.Snapshot()
						if s.Running > limits.MaxConcurrent || s.Memory > limits.MemoryBudget || s.Queued > limits.MaxQueued+owners {
							t.Errorf("seed %d: %+v", seed, s)
						}
						ticket.Release()
						ticket.Release()
					})
				}
			})
		}
		group.Wait()
		if s := q.Snapshot(); s.Running != 0 || s.Queued != 0 || s.Memory != 0 || len(q.turns) != 0 || len(q.waiting) != 0 {
			t.Errorf("seed %d: %+v is left", seed, s)
		}
	}
}

// TestWaitIsBounded drives the queue step by step: between a ticket's arrival at
// the head of its owner and its start there are at most so many other starts.
func TestWaitIsBounded(t *testing.T) {
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 7))
		const owners, concurrent, budget = 4, 3, 30
		q := New(Limits{MaxConcurrent: concurrent, MemoryBudget: budget, MaxQueued: 1000})
		type waiting struct {
			ticket *Ticket
			since  int
		}
		var running []*Ticket
		var queued [owners][]waiting
		starts := 0
		for step := range 3000 {
			owner := uint32(random.IntN(owners))
			if len(queued[owner]) < 5 {
				queued[owner] = append(queued[owner], waiting{admit(t, q, owner, 1+random.Int64N(budget)), starts})
			}
			if len(running) > 0 && random.IntN(2) == 0 {
				i := random.IntN(len(running))
				running[i].Release()
				running = slices.Delete(running, i, i+1)
			}
			for o := range queued {
				for len(queued[o]) > 0 && ready(queued[o][0].ticket) {
					if passed := starts - queued[o][0].since; passed > patience+2*owners+concurrent {
						t.Fatalf("seed %d, step %d: %d went past", seed, step, passed)
					}
					running = append(running, queued[o][0].ticket)
					queued[o] = queued[o][1:]
					starts++
					if len(queued[o]) > 0 {
						queued[o][0].since = starts
					}
				}
				if slices.ContainsFunc(queued[o], func(w waiting) bool { return ready(w.ticket) }) {
					t.Fatalf("seed %d, step %d: out of order within an owner", seed, step)
				}
			}
		}
	}
}

func BenchmarkAdmit(b *testing.B) {
	q := New(Limits{MaxConcurrent: 100, MaxQueued: 1000})
	for b.Loop() {
		t, err := q.Admit(1, 1)
		if err != nil {
			b.Fatal(err)
		}
		t.Release()
	}
}
