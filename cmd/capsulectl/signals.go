package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// insistence is the time within which a second SIGINT or SIGTERM means that the
// first was not enough.
const insistence = 5 * time.Second

// startPatience is the time for which a signal waits for the start to end. The
// payload runs a moment before capsulectl is told so, and may handle the signal.
const startPatience = 500 * time.Millisecond

// relay carries the signals that capsulectl gets to the payload.
//
//	before the sandbox runs   waits for it; a start that takes longer than
//	                          startPatience is cancelled
//	the first                 goes to the payload, which may handle it
//	SIGINT or SIGTERM again   within insistence: the whole tree is killed
//	and again                 after that: capsulectl gives up waiting and exits;
//	                          its death kills the sandbox
type relay struct {
	cancel  context.CancelFunc
	abandon func(syscall.Signal)
	now     func() time.Time
	later   func(time.Duration, func()) *time.Timer // time.AfterFunc
	ready   chan struct{}                           // closed when signals are caught

	mu        sync.Mutex
	execution execution
	starting  bool
	held      syscall.Signal // came during the start
	last      syscall.Signal
	lastAt    time.Time
	cancelled bool
}

// catch delivers signals to the relay and does not return. A signal that is
// ignored when capsulectl starts stays ignored: nohup and background jobs rely on
// it. Until ready is closed, some tenths of a millisecond, a signal ends
// capsulectl and with it what it has started.
func (r *relay) catch() {
	c := make(chan os.Signal, 8)
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
		if !signal.Ignored(s) {
			signal.Notify(c, s)
		}
	}
	close(r.ready)
	for s := range c {
		r.deliver(s.(syscall.Signal))
	}
}

// deliver acts on one signal. It does not block on the execution.
func (r *relay) deliver(s syscall.Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	insists := s == syscall.SIGINT || s == syscall.SIGTERM
	again := insists && r.last != 0 && r.now().Sub(r.lastAt) < insistence
	if insists || r.last == 0 {
		r.last, r.lastAt = s, r.now()
	}
	switch {
	case r.execution == nil && !r.starting:
		r.abandon(s)
	case r.cancelled && again:
		r.abandon(s)
	case again:
		r.cancelled = true
		r.cancel()
	case r.execution == nil && r.held == 0:
		r.held = s
		r.later(startPatience, r.expire)
	case r.execution == nil:
		r.held = s
	default:
		r.pass(s)
	}
}

// pass gives a signal to the payload. The caller holds the lock.
func (r *relay) pass(s syscall.Signal) {
	// An error means that the payload has ended meanwhile.
	go func(e execution) { _ = e.Kill(s, false) }(r.execution)
}

// expire cancels a start that a signal has waited for long enough.
func (r *relay) expire() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.execution == nil && !r.cancelled {
		r.cancelled = true
		r.cancel()
	}
}

// begin marks the moment from which a signal waits for the start instead of
// ending capsulectl at once.
func (r *relay) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.starting = true
}

// started gives the relay the execution to which signals go, that one first
// which came during the start.
func (r *relay) started(e execution) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.execution = e
	if r.held != 0 && !r.cancelled {
		r.pass(r.held)
	}
}

// received is the last signal, zero for none.
func (r *relay) received() syscall.Signal {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}
