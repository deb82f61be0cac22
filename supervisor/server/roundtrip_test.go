package server_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/client"
	"github.com/capsule-run/capsule/supervisor/server"
)

const request = `{"command":["echo","hello"]}`

// patience is for what must happen, however slow the machine is.
const patience = 60 * time.Second

// serve offers f on a socket until the test ends.
func serve(t testing.TB, f *fake, change func(*server.Options)) (address string, s *server.Server) {
	t.Helper()
	dir, err := os.MkdirTemp("", "capsule-server-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	address = filepath.Join(dir, "s")
	l, err := net.Listen("unix", address)
	if err != nil {
		t.Fatal(err)
	}
	o := server.Options{Supervisor: f.as, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	if change != nil {
		change(&o)
	}
	s = server.New(o)
	done := make(chan error, 1)
	go func() { done <- s.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return address, s
}

func dial(t testing.TB, address string) *client.Client {
	t.Helper()
	c, err := client.Dial(within(t), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func start(t testing.TB, c *client.Client, r *api.StartRequest) *api.Started {
	t.Helper()
	if r.Request == nil {
		r.Request = []byte(request)
	}
	e, err := c.Start(within(t), r)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func want(t testing.TB, what string, have, want any) {
	t.Helper()
	if !reflect.DeepEqual(have, want) {
		t.Errorf("%s: have %#v\nwant %#v", what, have, want)
	}
}

func TestStartWaitKill(t *testing.T) {
	f := newFake()
	address, _ := serve(t, f, nil)
	c, ctx := dial(t, address), within(t)
	r := &api.StartRequest{Request: []byte(request), ID: "0a", Profile: "p", StreamStdin: true, KillOnDisconnect: true}
	e := start(t, c, r)
	want(t, "the request", f.last("Start"), r)
	if !e.Created || e.ID != "0a" || !e.KillOnDisconnect || !e.Summary.Created.Equal(time.Unix(1700000000, 1)) {
		t.Errorf("%+v", e)
	}
	if again := start(t, c, r); again.Created {
		t.Error("it was created twice")
	}
	ok, err := c.Kill(ctx, "0a", syscall.SIGUSR1, false)
	if !ok || err != nil {
		t.Error(ok, err)
	}
	want(t, "kill", f.last("Kill"), []any{"0a", syscall.SIGUSR1, false})
	f.end("0a")
	response, err := c.Wait(ctx, "0a")
	if err != nil || response.Status != spec.StatusSuccess || *response.Stdout != "hello\n" {
		t.Errorf("%+v %v", response, err)
	}
}

func TestRun(t *testing.T) {
	f := newFake()
	f.waiting = make(chan string, 1)
	address, _ := serve(t, f, nil)
	c := dial(t, address)
	go func() { f.end(<-f.waiting) }()
	r, err := c.Run(within(t), &api.StartRequest{Request: []byte(request), ID: "0a"})
	if err != nil || r.ExecutionID != "0a" {
		t.Errorf("%+v %v", r, err)
	}
}

// TestAnswerIsPassedOn: an answer is sent as it is. Where there is none Wait is asked.
func TestAnswerIsPassedOn(t *testing.T) {
	f := newFake()
	f.instant = true
	code := 9
	passed := &spec.Response{ExecutionID: "0a", Status: spec.StatusSuccess, Termination: spec.Termination{Reason: spec.ReasonExited}, ExitCode: &code}
	address, _ := serve(t, f, func(o *server.Options) {
		o.Answer = func(_ context.Context, uid uint32, id string) []byte {
			if id != "0a" || uid != uint32(os.Geteuid()) {
				return nil
			}
			return passed.Encode(false)
		}
	})
	c := dial(t, address)
	for id, exit := range map[string]int{"0a": 9, "0b": 0} {
		ran, err := c.Run(within(t), &api.StartRequest{Request: []byte(request), ID: id})
		if err != nil || ran.ExecutionID != id || *ran.ExitCode != exit {
			t.Errorf("Run %s: %+v %v", id, ran, err)
		}
		ended, err := c.Wait(within(t), id)
		if err != nil || ended.ExecutionID != id || *ended.ExitCode != exit {
			t.Errorf("Wait %s: %+v %v", id, ended, err)
		}
	}
	want(t, "Wait was asked of", f.last("Wait"), "0b")
}

func TestTheOtherCalls(t *testing.T) {
	f := newFake()
	code := 3
	f.page = []api.Summary{{ID: "a", Status: "success", Reason: "exited", Command: []string{"x"}, Labels: map[string]string{"k": "v"},
		Owner: 7, Created: time.Unix(1, 0).UTC(), Started: time.Unix(2, 0).UTC(), Completed: time.Unix(3, 0).UTC(), ExitCode: &code}}
	address, _ := serve(t, f, nil)
	c, ctx := dial(t, address), within(t)
	filter := api.Filter{All: true, Statuses: []string{"success"}, Labels: map[string]string{"k": ""}, IDPrefix: "a", Since: time.Unix(1, 5).UTC(), PageSize: 9, Page: "p"}
	page, err := c.List(ctx, &filter)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "filter", f.last("List"), filter)
	want(t, "page", page.Executions, f.page)

	e := start(t, c, &api.StartRequest{})
	d, err := c.Inspect(ctx, e.ID)
	if err != nil || d.Pid != 42 || d.Request.Command[0] != "echo" || *d.Response.Stderr != "careful\n" || d.ID != e.ID {
		t.Errorf("%+v %v", d, err)
	}
	stats, err := c.Stats(ctx, []string{"a", "b"})
	if err != nil || len(stats) != 1 || *stats[0].Metrics.MaxPids != 7 || stats[0].PidsLimit != 2 || stats[0].Metrics.OOMKills != nil {
		t.Errorf("%+v %v", stats, err)
	}
	want(t, "stats", f.last("Stats"), []string{"a", "b"})
	if err := c.Remove(ctx, "a", true); err != nil {
		t.Error(err)
	}
	want(t, "remove", f.last("Remove"), []any{"a", true})
	o := api.PruneOptions{Before: time.Unix(5, 0).UTC(), Labels: map[string]string{"k": "v"}}
	pruned, err := c.Prune(ctx, &o)
	if err != nil || *pruned != (api.Pruned{Removed: 3, Bytes: 4}) {
		t.Errorf("%+v %v", pruned, err)
	}
	want(t, "prune", f.last("Prune"), o)
	info, err := c.Info(ctx)
	if err != nil || info.Pid != 5 || info.Sequence != 9 || info.APIVersions[0] != "v1" || !info.Started.Equal(time.Unix(1, 2)) {
		t.Errorf("%+v %v", info, err)
	}
	want(t, "caller", f.last("Info"), uint32(os.Geteuid()))
	if status, _, err := c.Health(ctx); status != "serving" || err != nil {
		t.Error(status, err)
	}
}

func TestEvents(t *testing.T) {
	f := newFake()
	const n = 1000
	f.events = func(_ context.Context, tell func(api.Event) error) error {
		for i := range uint64(n) {
			if err := tell(api.Event{Sequence: i + 1, Time: time.Unix(int64(i+1), 0).UTC(), Type: api.EventEnded, ExecutionID: "x", Attributes: map[string]string{"a": "b"}}); err != nil {
				return err
			}
		}
		return nil
	}
	address, _ := serve(t, f, nil)
	c := dial(t, address)
	next := uint64(1)
	err := c.Events(within(t), 5, false, func(e api.Event) error {
		want(t, "event", e, api.Event{Sequence: next, Time: time.Unix(int64(next), 0).UTC(), Type: api.EventEnded, ExecutionID: "x", Attributes: map[string]string{"a": "b"}})
		next++
		return nil
	})
	if err != nil || next != n+1 {
		t.Error(next, err)
	}
	want(t, "events", f.last("Events"), []any{uint64(5), false})
	enough := errors.New("enough")
	if err := c.Events(within(t), 0, true, func(api.Event) error { return enough }); err != enough {
		t.Error(err)
	}
}

func TestFaults(t *testing.T) {
	full := &fault.Fault{Code: fault.TooManyExecutions, Op: "admit", Path: "/p", Field: "/resources", Hint: "later",
		Err: errors.New("it is full"), Details: map[string]any{"retry_after_ms": int64(1500), "ratio": 0.5, "list": []any{int64(1), "x"}}}
	plain := fault.New(fault.NotFound, "", "gone")
	for name, c := range map[string]struct {
		err  error
		want error
	}{
		"all":                 {full, full},
		"a hint of the table": {plain, fault.New(fault.NotFound, "", "gone").WithHint(fault.NotFound.Info().Hint)},
		"several":             {fault.List{full, plain}, fault.List{full, fault.New(fault.NotFound, "", "gone").WithHint(fault.NotFound.Info().Hint)}},
		"an error":            {errors.New("odd"), fault.New(fault.IO, "", "odd").WithHint(fault.IO.Info().Hint)},
		"a system call":       {syscall.EPERM, fault.New(fault.SystemCall, "", syscall.EPERM.Error()).WithHint(fault.SystemCall.Info().Hint)},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			address, _ := serve(t, f, nil)
			cl, ctx := dial(t, address), within(t)
			f.mu.Lock()
			f.err = c.err
			f.mu.Unlock()
			calls := map[string]func() error{
				"Start":  func() error { _, err := cl.Start(ctx, &api.StartRequest{}); return err },
				"Wait":   func() error { _, err := cl.Wait(ctx, "x"); return err },
				"Run":    func() error { _, err := cl.Run(ctx, &api.StartRequest{}); return err },
				"Remove": func() error { return cl.Remove(ctx, "x", false) },
				"Attach": func() error { return cl.Attach(ctx, "x", &api.AttachOptions{Stdout: io.Discard}) },
				"Events": func() error { return cl.Events(ctx, 0, true, nil) },
			}
			for call, f := range calls {
				same(t, call, f(), c.want)
			}
		})
	}
}

// same compares faults by all that travels.
func same(t *testing.T, what string, have, wanted error) {
	t.Helper()
	list := func(err error) (all []*fault.Fault) {
		var l fault.List
		if errors.As(err, &l) {
			return l
		}
		var f *fault.Fault
		if errors.As(err, &f) {
			return []*fault.Fault{f}
		}
		t.Errorf("%s: %v is no fault", what, err)
		return nil
	}
	h, w := list(have), list(wanted)
	if len(h) != len(w) {
		t.Errorf("%s: have %v, want %v", what, have, wanted)
		return
	}
	for i := range h {
		if h[i].Code != w[i].Code || h[i].Message() != w[i].Message() || h[i].Field != w[i].Field || h[i].Hint != w[i].Hint || h[i].Path != w[i].Path {
			t.Errorf("%s: have %#v, want %#v", what, h[i], w[i])
		}
		want(t, what+" details", h[i].Details, w[i].Details)
	}
}
