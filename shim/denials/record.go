package denials

import (
	"cmp"
	"slices"
	"strings"
	"sync"

	"github.com/capsule-run/capsule/spec"
)

// Bounds of a record, whatever a payload does.
const (
	maxCalls = 64 // different calls; the others are counted together
	maxNames = 4  // process names of one call
)

// OtherCalls is the name under which calls beyond the bound are counted.
const OtherCalls = "other calls"

// Record is what a filter refused, one entry for each system call. The zero
// value is empty. It may be used from several goroutines.
type Record struct {
	mu      sync.Mutex
	entries map[string]*entry
	killed  string
	forced  bool
}

type entry struct {
	count     int64
	answer    string // the errno, or that it was killed
	arguments string // of the first call
	processes []string
	tasks     []uint32 // whose name was looked up, as many as processes at most
}

// add counts one refused call. describe is asked once for each entry, process
// for a few tasks of it.
func (r *Record) add(call, answer string, task uint32, describe func() string, process func() string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.entries == nil {
		r.entries = map[string]*entry{}
	}
	e := r.entries[call]
	if e == nil {
		if len(r.entries) >= maxCalls {
			call = OtherCalls
			e = r.entries[call]
		}
		if e == nil {
			e = &entry{answer: answer}
			if call != OtherCalls {
				e.arguments = describe()
			}
			r.entries[call] = e
		}
	}
	e.count++
	if len(e.tasks) < maxNames && !slices.Contains(e.tasks, task) {
		e.tasks = append(e.tasks, task)
		if name := process(); name != "" && !slices.Contains(e.processes, name) {
			e.processes = append(e.processes, name)
		}
	}
}

// kill notes the call for which a process was killed, the first of them.
func (r *Record) kill(call string, forced bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.killed == "" {
		r.killed = call
	}
	r.forced = r.forced || forced
}

// Killed is the first call for which a process was killed; empty: none. With
// forced a process handled or blocked SIGSYS and was ended by SIGKILL.
func (r *Record) Killed() (call string, forced bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.killed, r.forced
}

// List is the record as the response has it, the most frequent first. Nil when
// nothing was refused.
func (r *Record) List() []spec.Denial {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []spec.Denial
	for name, e := range r.entries {
		detail := e.answer
		if e.arguments != "" {
			detail += "; " + e.arguments
		}
		if len(e.processes) > 0 {
			detail += "; by " + strings.Join(e.processes, ", ")
		}
		out = append(out, spec.Denial{Kind: "syscall", Name: name, Count: e.count, Detail: detail})
	}
	slices.SortFunc(out, func(a, b spec.Denial) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// printable is text of the payload's choosing without what could disturb a
// terminal or a line.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, s)
}
