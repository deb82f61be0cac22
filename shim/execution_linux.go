package shim

import (
	"github.com/capsule-run/capsule/shim/shimapi"

	"os"
	"sync"
	"time"

	"github.com/capsule-run/capsule/runtime/cgroup"
	"github.com/capsule-run/capsule/runtime/launch"
	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/shim/denials"
	"github.com/capsule-run/capsule/shim/host"
	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/shim/output"
	"github.com/capsule-run/capsule/spec"
)

// execution is the one execution of this process. Its life is one straight
// line: create, start, monitor, finish, teardown; the channels mark how far
// it has come.
type execution struct {
	boot    shimapi.Bootstrap
	dir     layout.Dir
	created time.Time

	// Closed, in this order, when create has returned (also in failure), when
	// the command runs or never will, when the response is written, and when
	// nothing of the sandbox is left.
	prepared, running, ended, gone chan struct{}

	lost chan struct{} // closed when the starter reads no more: it has the answer, or is gone

	// Written before prepared is closed, read-only after.
	req      *spec.Request
	facts    factsOf
	plan     *plan.Plan
	group    *cgroup.Group
	version  cgroup.Mode
	ready    *launch.Prepared
	stdio    stdio
	slot     *os.File
	spare    *spare          // prepared before there was a request, until it is taken or given up; nil: none
	waiting  *launch.Sandbox // taken from spare, until it runs
	host     *cgroup.Host
	givenUp  chan error // the end of a spare that was not taken; nil: there was none
	filter   []byte     // as compiled; nil: none
	warnings []string
	// writeBundle puts the bundle on the disk; nil: there is none to write.
	writeBundle func() error
	without     []string // what a Trial leaves out; nil for every execution of a caller
	bare        *bare    // the command runs without a sandbox; nil: in one
	foreign     *foreign // the bundle from outside that is run; nil: req makes it
	// boundless are the limits that a bundle from outside leaves out.
	boundless []string

	// Written before running is closed.
	sandbox *launch.Sandbox
	started time.Duration // CLOCK_MONOTONIC, as the sandbox measured it

	// Written before ended is closed.
	response []byte
	// inFiles: the output is in files, and not in response.
	inFiles bool
	// unwritten: response could not be recorded. It is set before ended is closed.
	unwritten bool

	// Written before gone is closed: why something of the sandbox is left.
	left error

	clock phases

	denied  denials.Record    // what the filter refused
	watched *denials.Observed // nil: no call is watched

	timeline timeline

	mu   sync.Mutex
	seen observation             // what monitor and callers saw; guarded by mu
	held [2]*output.Subscription // of stdout and stderr, for who started it; guarded by mu
	born *launch.Sandbox         // while it is set up, so that cancel reaches it; guarded by mu
}

// factsOf is what later parts need of the host's facts.
type factsOf struct {
	degraded []string
	io       host.IO
}

// stdio are the two captured streams, the shim's end of stdin, and the ends
// that the payload gets.
type stdio struct {
	stdout, stderr *output.Stream
	stdin          *os.File // writer; nil: none
	payload        [3]int
}

func newExecution(b shimapi.Bootstrap) *execution {
	return &execution{
		boot: b, dir: b.StateDir.Execution(b.ExecutionID), created: time.Now(), clock: newPhases(),
		prepared: make(chan struct{}), running: make(chan struct{}), ended: make(chan struct{}), gone: make(chan struct{}),
		lost: make(chan struct{}),
	}
}

// note changes the observation under the lock.
func (e *execution) note(change func(*observation)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change(&e.seen)
}

func (e *execution) observed() observation {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.seen
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// state names how far the execution is.
func (e *execution) state() string {
	switch {
	case isClosed(e.ended):
		return "ended"
	case isClosed(e.running):
		return "running"
	case isClosed(e.prepared):
		return "starting"
	}
	return "created"
}

// phases stamps the steps of a start, in microseconds.
type phases struct {
	begin, last time.Time
	micros      map[string]int64
}

func newPhases() phases {
	now := time.Now()
	return phases{begin: now, last: now, micros: make(map[string]int64, 8)}
}

// total is the time of all phases; it is called when they are over.
func (p *phases) total() *int64 { return ptr(p.last.Sub(p.begin).Microseconds()) }

// mark ends the phase called name.
func (p *phases) mark(name string) {
	now := time.Now()
	p.micros[name] += now.Sub(p.last).Microseconds()
	p.last = now
}
