package main

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/supervisor"
)

// TestSignals plays a person at the keyboard: the payload answers each signal it
// gets by asking for the next step.
func TestSignals(t *testing.T) {
	byItself := func(_ context.Context, _ supervisor.Streams, kills <-chan syscall.Signal) *spec.Response {
		return signalled(spec.StatusKilled, spec.ReasonKilledByCaller, int(<-kills))
	}
	handles := func(_ context.Context, _ supervisor.Streams, kills <-chan syscall.Signal) *spec.Response {
		<-kills
		return exited(4)
	}
	ignores := func(ctx context.Context, _ supervisor.Streams, _ <-chan syscall.Signal) *spec.Response {
		<-ctx.Done()
		return signalled(spec.StatusKilled, spec.ReasonKilledByCaller, 9)
	}
	for _, c := range []struct {
		name    string
		run     func(context.Context, supervisor.Streams, <-chan syscall.Signal) *spec.Response
		signals []syscall.Signal
		code    int
		says    string
	}{
		{"dies of it", byItself, []syscall.Signal{syscall.SIGINT}, 130, ""},
		{"handles it", handles, []syscall.Signal{syscall.SIGTERM}, 4, ""},
		{"SIGHUP is passed on", byItself, []syscall.Signal{syscall.SIGHUP}, 129, ""},
		{"ignores Ctrl-C", ignores, []syscall.Signal{syscall.SIGINT, syscall.SIGINT}, 130, "capsule: killed: interrupted by SIGINT\n"},
		{"ignores SIGTERM", ignores, []syscall.Signal{syscall.SIGINT, syscall.SIGTERM}, 143, "capsule: killed: interrupted by SIGTERM\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench("")
			running := make(chan struct{})
			b.engine.run = func(ctx context.Context, st supervisor.Streams, kills <-chan syscall.Signal) *spec.Response {
				close(running)
				return c.run(ctx, st, kills)
			}
			code := make(chan int)
			go func() { code <- b.run([]string{"sleep", "9"}) }()
			r := <-b.relay
			<-running
			waitStarted(r)
			for _, s := range c.signals {
				r.deliver(s)
			}
			if got := <-code; got != c.code {
				t.Errorf("exit %d, want %d", got, c.code)
			}
			if b.errOut.String() != c.says {
				t.Errorf("stderr %q, want %q", b.errOut.String(), c.says)
			}
		})
	}
}

// waitStarted returns when the relay knows the execution.
func waitStarted(r *relay) {
	for {
		r.mu.Lock()
		started := r.execution != nil
		r.mu.Unlock()
		if started {
			return
		}
	}
}

func TestRelay(t *testing.T) {
	now := time.Unix(0, 0)
	var cancelled int
	var late func()
	var abandoned []syscall.Signal
	r := &relay{
		cancel:  func() { cancelled++ },
		abandon: func(s syscall.Signal) { abandoned = append(abandoned, s) },
		now:     func() time.Time { return now },
		later:   func(_ time.Duration, f func()) *time.Timer { late = f; return nil },
	}
	expect := func(when string, cancels, abandons int) {
		t.Helper()
		if cancelled != cancels || len(abandoned) != abandons {
			t.Fatalf("%s: cancelled %d times, abandoned %d", when, cancelled, len(abandoned))
		}
	}
	r.deliver(syscall.SIGTERM)
	expect("while the request is read", 0, 1)
	now = now.Add(time.Minute)
	r.begin()
	r.deliver(syscall.SIGINT)
	expect("while starting", 0, 1)
	late()
	expect("a start that takes long", 1, 1)

	kills := make(chan syscall.Signal, 8)
	now = now.Add(time.Minute)
	r.cancelled, r.held = false, 0
	r.deliver(syscall.SIGTERM)
	r.started(&fakeExecution{kills: kills})
	if s := <-kills; s != syscall.SIGTERM {
		t.Fatalf("the payload got %v", s)
	}
	late()
	expect("a start that ended in time", 1, 1)
	now = now.Add(time.Minute)
	r.deliver(syscall.SIGINT)
	if s := <-kills; s != syscall.SIGINT {
		t.Fatalf("the payload got %v", s)
	}
	expect("first", 1, 1)
	now = now.Add(insistence)
	r.deliver(syscall.SIGINT)
	<-kills
	expect("a second one much later is a first one", 1, 1)
	r.deliver(syscall.SIGQUIT)
	<-kills
	expect("SIGQUIT does not insist", 1, 1)
	r.deliver(syscall.SIGTERM)
	expect("second", 2, 1)
	r.deliver(syscall.SIGINT)
	expect("third", 2, 2)
	if r.received() != syscall.SIGINT {
		t.Errorf("last is %v", r.received())
	}
}
