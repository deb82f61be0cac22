package admission

import (
	"strconv"

	"github.com/capsule-run/capsule/spec/fault"
)

// Bounds are what one owner may have, running and waiting.
type Bounds struct {
	// Executions is their number; 0: any.
	Executions int
	// MemoryBytes is the sum of their memory limits; 0: any.
	MemoryBytes int64
}

// share is what an owner has.
type share struct {
	executions int
	memory     int64
}

// count adds n tickets like t to what its owner has.
func (q *Queue) count(t *Ticket, n int) {
	s := q.shares[t.owner]
	s.executions += n
	s.memory += int64(n) * t.memory
	if s.executions == 0 {
		delete(q.shares, t.owner)
		return
	}
	q.shares[t.owner] = s
}

// beyond refuses what an owner may not have besides what he has.
func (q *Queue) beyond(owner uint32, memory int64, b Bounds) *fault.Fault {
	s := q.shares[owner]
	message, rule := "", ""
	switch {
	case b.Executions > 0 && s.executions >= b.Executions:
		message, rule = strconv.Itoa(s.executions)+" of this caller run or wait, and at most "+strconv.Itoa(b.Executions)+" may", "security.max_concurrent_executions"
	case b.MemoryBytes > 0 && memory > b.MemoryBytes-s.memory:
		message, rule = strconv.FormatInt(s.memory, 10)+" bytes of memory limits are this caller's, and at most "+strconv.FormatInt(b.MemoryBytes, 10)+" may be", "limits.owner.memory_bytes"
	default:
		return nil
	}
	f := fault.New(fault.TooManyExecutions, "check "+rule, message).WithHint(q.hint())
	f.Details = map[string]any{"retry_after_ms": q.retryAfter().Milliseconds(), "rule": rule, "max_executions": b.Executions, "max_memory_bytes": b.MemoryBytes}
	return f
}
