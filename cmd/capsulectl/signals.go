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

// relay carries the signals that capsulectl gets to the payload.
//
//	before the sandbox runs   the start is cancelled
//	the first                 goes to the payload, which may handle it
//	SIGINT or SIGTERM again   within insistence: the whole tree is killed
//	and again                 after that: capsulectl gives up waiting and exits;
//	                          its death kills the sandbox
type relay struct {
	cancel  context.CancelFunc
	abandon func(syscall.Signal)
	now     func() time.Time

	mu        sync.Mutex
	execution execution
	starting  bool
	last      syscall.Signal
	lastAt    time.Time
	cancelled bool
}

// catch delivers signals to the relay and does not return. A signal that is
// ignored when capsulectl starts stays ignored: nohup and background jobs rely on
// it. Until the runtime has set this up, some tenths of a millisecond, a signal
// ends capsulectl and with it what it has started.
func (r *relay) catch() {
	c := make(chan os.Signal, 8)
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
		if !signal.Ignored(s) {
			signal.Notify(c, s)
		}
	}
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
	case r.execution == nil || again:
		r.cancelled = true
		r.cancel()
	default:
		// An error means that the payload has ended meanwhile.
		go func(e execution) { _ = e.Kill(s, false) }(r.execution)
	}
}

// begin marks the moment from which a signal cancels the start instead of
// ending capsulectl at once.
func (r *relay) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.starting = true
}

// started gives the relay the execution to which signals go.
func (r *relay) started(e execution) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.execution = e
}

// received is the last signal, zero for none.
func (r *relay) received() syscall.Signal {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}
