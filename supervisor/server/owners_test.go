package server_test

import (
	"errors"
	"testing"
	"time"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/server"
)

// soon makes executions die at once when their owner is gone; never gives tests
// that look for a death that must not come a reason to end.
func soon(o *server.Options)  { o.TakeoverTimeout = 50 * time.Millisecond }
func never(o *server.Options) { o.TakeoverTimeout = 10 * patience }

func killed(t *testing.T, f *fake) string {
	t.Helper()
	select {
	case id := <-f.kills:
		return id
	case <-time.After(patience):
		t.Fatal("nothing is killed")
		return ""
	}
}

func TestKillOnDisconnect(t *testing.T) {
	f := newFake()
	address, _ := serve(t, f, soon)
	c := dial(t, address)
	start(t, c, &api.StartRequest{ID: "stays"})
	start(t, c, &api.StartRequest{ID: "goes", KillOnDisconnect: true})
	_ = c.Close()
	if id := killed(t, f); id != "goes" {
		t.Error(id)
	}
	other := dial(t, address)
	if _, err := other.Wait(within(t), "goes"); err != nil {
		t.Error(err)
	}
	select {
	case id := <-f.kills:
		t.Errorf("%s is killed too", id)
	default:
	}
}

// TestTakeover takes two executions over, each in one of the ways, and shows by
// the death of a third, whose time began last, that theirs would have come.
func TestTakeover(t *testing.T) {
	for name, early := range map[string]bool{"before the owner is gone": true, "afterwards": false} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			address, _ := serve(t, f, func(o *server.Options) { o.TakeoverTimeout = 2 * time.Second })
			first, second := dial(t, address), dial(t, address)
			ids := []string{"a", "b"}
			for _, id := range ids {
				start(t, first, &api.StartRequest{ID: id, KillOnDisconnect: true})
			}
			if !early {
				_ = first.Close()
			}
			if start(t, second, &api.StartRequest{ID: "a", KillOnDisconnect: true}).Created {
				t.Error("it was created again")
			}
			waited := make(chan error, 1)
			go func() { _, err := second.WaitOwned(within(t), "b"); waited <- err }()
			eventually(t, "the wait has begun", func() bool { return f.last("Wait") == "b" })
			_ = first.Close()
			third := dial(t, address)
			start(t, third, &api.StartRequest{ID: "c", KillOnDisconnect: true})
			_ = third.Close()
			if id := killed(t, f); id != "c" {
				t.Errorf("%s is killed", id)
			}
			_ = second.Close()
			<-waited
			if one, two := killed(t, f), killed(t, f); one == two {
				t.Error(one, two)
			}
		})
	}
}

func TestAWaitWithoutOwnTakesNothingOver(t *testing.T) {
	f := newFake()
	address, _ := serve(t, f, soon)
	first, second := dial(t, address), dial(t, address)
	start(t, first, &api.StartRequest{ID: "a", KillOnDisconnect: true})
	waited := make(chan error, 1)
	go func() { _, err := second.Wait(within(t), "a"); waited <- err }()
	_ = first.Close()
	killed(t, f)
	if err := <-waited; err != nil {
		t.Error(err)
	}
}

// TestRestart closes a server, which kills nothing, and lets another adopt.
func TestRestart(t *testing.T) {
	f := newFake()
	address, s := serve(t, f, soon)
	c := dial(t, address)
	e := start(t, c, &api.StartRequest{ID: "a", KillOnDisconnect: true})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Info(within(t)); err == nil {
		t.Error("the connection outlives its server")
	}
	select {
	case <-f.kills:
		t.Error("the end of the server is taken for the caller's")
	default:
	}
	_, next := serve(t, f, soon)
	ended := api.Summary{ID: "x", Status: "success", KillOnDisconnect: true}
	free := api.Summary{ID: "y", Status: api.StatusRunning}
	next.Adopt([]api.Summary{ended, free, e.Summary})
	if id := killed(t, f); id != "a" {
		t.Error(id)
	}
}

func TestAnEndedExecutionIsForgotten(t *testing.T) {
	f := newFake()
	address, s := serve(t, f, never)
	c := dial(t, address)
	start(t, c, &api.StartRequest{ID: "a", KillOnDisconnect: true})
	if n := s.Owned(); n != 1 {
		t.Errorf("%d are owned", n)
	}
	f.end("a")
	eventually(t, "it is forgotten", func() bool { return s.Owned() == 0 })
}

// TestEndIsNoCancellation: a supervisor that ends is gone to whoever waits, who did not cancel.
// Which of the two, the answer or the end of the connection, comes first is left to chance.
func TestEndIsNoCancellation(t *testing.T) {
	for range 50 {
		f := newFake()
		f.waiting = make(chan string, 1)
		address, s := serve(t, f, nil)
		c := dial(t, address)
		start(t, c, &api.StartRequest{ID: "a"})
		waited := make(chan error, 1)
		go func() { _, err := c.Wait(within(t), "a"); waited <- err }()
		<-f.waiting
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-waited; !errors.Is(err, &fault.Fault{Code: fault.Unreachable}) {
			t.Fatal(err)
		}
	}
}
