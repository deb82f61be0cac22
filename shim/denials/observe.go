package denials

import (
	"slices"
	"strings"
	"sync"

	"github.com/capsule-run/capsule/runtime/seccomp"
	"github.com/capsule-run/capsule/spec"
)

// maxArguments bounds the different arguments of one call that are kept.
const maxArguments = 64

// Observed is what a payload called under the profile audit. It may be used from
// several goroutines.
type Observed struct {
	mu   sync.Mutex
	lens *seccomp.Lens
	uses map[string]*use
}

type use struct {
	count     int64
	arguments []string
	partial   bool
	refusedBy []string
	processes []string
	tasks     []uint32
}

// NewObserved is an empty record, but for calls that are made and not watched.
func NewObserved(unwatched ...string) (*Observed, error) {
	lens, err := seccomp.NewLens()
	if err != nil {
		return nil, err
	}
	o := &Observed{lens: lens, uses: map[string]*use{}}
	for _, call := range unwatched {
		o.uses[call] = &use{arguments: []string{""}}
	}
	return o, nil
}

// add notes one call. process is asked for a few tasks of each call.
func (o *Observed) add(call string, args *[6]uint64, task uint32, process func() string) {
	decisive, refusedBy := o.lens.See(call, args)
	o.mu.Lock()
	defer o.mu.Unlock()
	u := o.uses[call]
	if u == nil {
		// The filter lets only calls pass that it names, so there are no more than those.
		u = &use{}
		o.uses[call] = u
	}
	u.count++
	for _, name := range refusedBy {
		if !slices.Contains(u.refusedBy, name) {
			u.refusedBy = append(u.refusedBy, name)
		}
	}
	switch {
	case slices.Contains(u.arguments, decisive):
	case len(u.arguments) < maxArguments:
		u.arguments = append(u.arguments, decisive)
	default:
		u.partial = true
	}
	if len(u.tasks) < maxNames && !slices.Contains(u.tasks, task) {
		u.tasks = append(u.tasks, task)
		if name := process(); name != "" && !slices.Contains(u.processes, name) {
			u.processes = append(u.processes, name)
		}
	}
}

// List is the record as the response has it, sorted by name. Nil is empty.
func (o *Observed) List() []spec.SyscallUse {
	if o == nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	out := make([]spec.SyscallUse, 0, len(o.uses))
	for name, u := range o.uses {
		s := spec.SyscallUse{Name: name, Count: u.count, Partial: u.partial, Processes: slices.Clone(u.processes), RefusedBy: slices.Clone(u.refusedBy)}
		if !slices.Equal(u.arguments, []string{""}) {
			s.Arguments = slices.Clone(u.arguments)
		}
		slices.Sort(s.Arguments)
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b spec.SyscallUse) int { return strings.Compare(a.Name, b.Name) })
	return out
}
