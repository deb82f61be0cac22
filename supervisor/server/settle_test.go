package server_test

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/capsule-run/capsule/supervisor/api"
)

// TestSettle ends a server as soon as an execution has ended: who waits for it, and who is
// attached, is told. Who follows the events holds nobody up.
func TestSettle(t *testing.T) {
	for round := range 50 {
		f := newFake()
		f.waiting = make(chan string, 1)
		attached, ended := make(chan struct{}), make(chan struct{})
		f.attach = func(_ context.Context, _ string, o *api.AttachOptions) error {
			close(attached)
			<-ended
			_, err := io.WriteString(o.Stdout, "last\n")
			return err
		}
		listens := make(chan struct{})
		f.events = func(ctx context.Context, _ func(api.Event) error) error {
			close(listens)
			<-ctx.Done()
			return ctx.Err()
		}
		address, s := serve(t, f, nil)
		c, other := dial(t, address), dial(t, address)
		e := start(t, c, &api.StartRequest{})
		follows := make(chan error, 1)
		go func() { follows <- other.Events(within(t), 0, true, func(api.Event) error { return nil }) }()
		waits, reads := make(chan error, 1), make(chan error, 1)
		go func() { _, err := c.Wait(within(t), e.ID); waits <- err }()
		var out bytes.Buffer
		go func() { reads <- c.Attach(within(t), e.ID, &api.AttachOptions{Stdout: &out}) }()
		<-listens
		<-attached
		<-f.waiting
		if !s.Unanswered() {
			t.Error("nobody waits")
		}
		close(ended)
		f.end(e.ID)
		s.Settle()
		if s.Unanswered() {
			t.Error("somebody is not told")
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-waits; err != nil {
			t.Errorf("round %d: wait: %v", round, err)
		}
		if err := <-reads; err != nil || out.String() != "last\n" {
			t.Errorf("round %d: attach: %q, %v", round, out.String(), err)
		}
		if err := <-follows; err == nil {
			t.Error("the events end well")
		}
	}
}
