package main

import (
	"context"
	"sync"
	"time"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
)

// returnPatience is how long a daemon whose connection was lost may take to
// come back: it lets executions live as long that nobody takes over.
const returnPatience = 10 * time.Second

// redialPause is the time between two attempts to reach it.
const redialPause = 100 * time.Millisecond

// link is a supervisor and the way back to it when the connection is lost.
type link struct {
	// dial connects again; nil for the supervisor in this process.
	dial func(context.Context) (api.Supervisor, func() error, error)
	// resume, when not nil, is called after the connection came back.
	resume func(context.Context, api.Supervisor) error
	// patience is returnPatience outside of tests.
	patience time.Duration
	// sleep waits, less long when the context is done.
	sleep func(context.Context, time.Duration)

	mu         sync.Mutex
	supervisor api.Supervisor
	closer     func() error
	// dialled counts the connections, so that of two calls that lost the same
	// one only one dials.
	dialled int
}

// now is the connected supervisor and the number of its connection.
func (l *link) now() (api.Supervisor, int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.supervisor, l.dialled
}

// current is the connected supervisor.
func (l *link) current() api.Supervisor {
	s, _ := l.now()
	return s
}

// close ends the connection. What it fails with is of no use to anybody.
func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closer != nil {
		_ = l.closer()
	}
}

// persist calls f, and again with a new connection when the connection was lost.
// It gives up when the daemon does not come back within its patience, or
// loses the connection over and over.
func (l *link) persist(ctx context.Context, f func(api.Supervisor) error) error {
	var deadline time.Time
	for {
		s, number := l.now()
		begun := time.Now()
		err := f(s)
		if err == nil || l.dial == nil || ctx.Err() != nil || fault.From(err, fault.IO).Code != fault.Unreachable {
			return err
		}
		if deadline.IsZero() || time.Since(begun) > l.patience/2 {
			deadline = time.Now().Add(l.patience)
		}
		if !l.reconnect(ctx, number, deadline) {
			return err
		}
		// The daemon may be there and unable to reach a shim, which is the same error.
		l.sleep(ctx, redialPause)
	}
}

// reconnect replaces the connection with that number; false: it could not.
func (l *link) reconnect(ctx context.Context, number int, deadline time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	for l.dialled == number {
		if ctx.Err() != nil {
			return false
		}
		s, closer, err := l.dial(ctx)
		if err == nil {
			if err = answers(ctx, s); err == nil && l.resume != nil {
				err = l.resume(ctx, s)
			}
			if err != nil {
				_ = closer() // of no use any more
			}
		}
		if err != nil {
			l.sleep(ctx, redialPause)
			continue
		}
		_ = l.closer() // it is lost already
		l.supervisor, l.closer, l.dialled = s, closer, number+1
	}
	return time.Now().Before(deadline)
}

// answers waits until the supervisor answers, where that is not certain.
func answers(ctx context.Context, s api.Supervisor) error {
	h, ok := s.(interface {
		Health(context.Context) (string, []string, error)
	})
	if !ok {
		return nil
	}
	_, _, err := h.Health(ctx)
	return err
}

// pause is the sleep of a link outside of tests.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
