package admission

import (
	"testing"

	"github.com/capsule-run/capsule/spec/fault"
)

// TestBoundsOfAnOwner: what runs and what waits counts, others are not touched,
// and a released ticket makes room.
func TestBoundsOfAnOwner(t *testing.T) {
	q := New(Limits{MaxConcurrent: 1, MaxQueued: 10})
	b := Bounds{Executions: 2, MemoryBytes: 100}
	admit := func(owner uint32, memory int64, want fault.Code) *Ticket {
		t.Helper()
		ticket, err := q.AdmitWithin(owner, memory, b)
		code := fault.Code("")
		if err != nil {
			code = fault.From(err, "").Code
		}
		if code != want {
			t.Fatalf("%v, want %q", err, want)
		}
		return ticket
	}
	first := admit(7, 60, "")
	admit(7, 41, fault.TooManyExecutions)
	second := admit(7, 40, "") // it waits, and counts
	admit(7, 0, fault.TooManyExecutions)
	admit(8, 100, "").Release()
	second.Release()
	second.Release()
	third := admit(7, 40, "")
	first.Release()
	third.Release()
	adopted := q.Adopt(7, 90)
	admit(7, 11, fault.TooManyExecutions)
	adopted.Release()
	if len(q.shares) != 0 {
		t.Errorf("something is left: %v", q.shares)
	}
}
