package server_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
)

// fake is a supervisor without sandboxes: its executions end when they are
// killed or told to.
type fake struct {
	mu    sync.Mutex
	runs  map[string]*fakeRun
	calls map[string]any // last argument by call
	kills chan string    // ids, as they are killed whole

	err      error                                                            // answers every call
	attach   func(ctx context.Context, id string, o *api.AttachOptions) error // nil: output, then the end
	events   func(ctx context.Context, f func(api.Event) error) error
	attached atomic.Int64 // calls of attach that have not returned
	page     []api.Summary
	instant  bool        // executions end at once
	waiting  chan string // gets the id of every Wait; nil: nobody asks
}

type fakeRun struct {
	api.Summary
	request []byte
	stdout  []byte
	stderr  []byte
	stdin   bytes.Buffer
	done    chan struct{}
	ended   bool
}

func newFake() *fake {
	return &fake{runs: map[string]*fakeRun{}, calls: map[string]any{}, kills: make(chan string, 64)}
}

// detached waits until every call of attach has returned.
func (f *fake) detached() {
	for f.attached.Load() > 0 {
		time.Sleep(time.Millisecond)
	}
}

// as is the view of one uid.
func (f *fake) as(uid uint32) api.Supervisor { return &view{f, uid} }

type view struct {
	*fake
	uid uint32
}

func (f *fake) note(call string, arg any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[call] = arg
	return f.err
}

func (f *fake) last(call string) any {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[call]
}

func (v *view) find(id string) (*fakeRun, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	r := v.runs[id]
	if r == nil || v.uid != 0 && v.uid != r.Owner {
		return nil, fault.New(fault.NotFound, "find execution", "there is none with the id "+id)
	}
	return r, nil
}

// end lets an execution end with this output.
func (f *fake) end(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r := f.runs[id]; r != nil && !r.ended {
		r.ended = true
		r.Status = string(spec.StatusSuccess)
		close(r.done)
	}
}

func (v *view) Start(_ context.Context, r *api.StartRequest) (*api.Started, error) {
	if err := v.note("Start", r); err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	id := r.ID
	if id == "" {
		id = fmt.Sprintf("00000000-0000-4000-8000-%012d", len(v.runs)+1)
	}
	if old := v.runs[id]; old != nil {
		return &api.Started{Summary: old.Summary}, nil
	}
	run := &fakeRun{
		Summary: api.Summary{
			ID: id, Status: api.StatusRunning, Command: []string{"echo", "hello"}, Owner: v.uid,
			Created: time.Unix(1700000000, 1).UTC(), KillOnDisconnect: r.KillOnDisconnect,
		},
		request: r.Request, done: make(chan struct{}), stdout: []byte("hello\n"), stderr: []byte("careful\n"),
	}
	v.runs[id] = run
	if v.instant {
		close(run.done)
	}
	return &api.Started{Summary: run.Summary, Created: true}, nil
}

func (v *view) Wait(ctx context.Context, id string) (*spec.Response, error) {
	if err := v.note("Wait", id); err != nil {
		return nil, err
	}
	r, err := v.find(id)
	if err != nil {
		return nil, err
	}
	if v.waiting != nil {
		v.waiting <- id
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return v.response(r), nil
}

func (v *view) response(r *fakeRun) *spec.Response {
	code := 0
	answer := &spec.Response{
		ExecutionID: r.ID, Status: spec.StatusSuccess, Termination: spec.Termination{Reason: spec.ReasonExited}, ExitCode: &code,
		Timestamps: spec.Timestamps{Created: r.Created},
		Output: &spec.Output{
			Stdout: spec.StreamCount{BytesTotal: int64(len(r.stdout)), BytesKept: int64(len(r.stdout))},
			Stderr: spec.StreamCount{BytesTotal: int64(len(r.stderr)), BytesKept: int64(len(r.stderr))},
		},
	}
	answer.SetOutput(r.stdout, r.stderr)
	return answer
}

func (v *view) Kill(_ context.Context, id string, sig syscall.Signal, all bool) (bool, error) {
	if err := v.note("Kill", []any{id, sig, all}); err != nil {
		return false, err
	}
	if _, err := v.find(id); err != nil {
		return false, err
	}
	if all {
		v.kills <- id
		v.end(id)
	}
	return true, nil
}

func (v *view) Attach(ctx context.Context, id string, o *api.AttachOptions) error {
	v.attached.Add(1)
	defer v.attached.Add(-1)
	if err := v.note("Attach", *o); err != nil {
		return err
	}
	r, err := v.find(id)
	if err != nil {
		return err
	}
	if v.attach != nil {
		return v.attach(ctx, id, o)
	}
	if o.Stdin != nil {
		if _, err := io.Copy(&r.stdin, o.Stdin); err != nil {
			return err
		}
	}
	for _, s := range []struct {
		to   io.Writer
		data []byte
		from int64
	}{{o.Stdout, r.stdout, o.StdoutOffset}, {o.Stderr, r.stderr, o.StderrOffset}} {
		if s.to != nil {
			if _, err := s.to.Write(s.data[min(s.from, int64(len(s.data))):]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (v *view) List(_ context.Context, f *api.Filter) (*api.Page, error) {
	if err := v.note("List", *f); err != nil {
		return nil, err
	}
	v.mu.Lock()
	page := v.page
	v.mu.Unlock()
	if n := f.PageSize; n > 0 && n < len(page) {
		return &api.Page{Executions: page[:n], Next: fmt.Sprint(n)}, nil
	}
	return &api.Page{Executions: page}, nil
}

func (v *view) Inspect(_ context.Context, id string) (*api.Details, error) {
	if err := v.note("Inspect", id); err != nil {
		return nil, err
	}
	r, err := v.find(id)
	if err != nil {
		return nil, err
	}
	request, err := spec.DecodeRequest(r.request)
	if err != nil {
		return nil, err
	}
	return &api.Details{Summary: r.Summary, Request: request, Response: v.response(r), Pid: 42}, nil
}

func (v *view) Stats(_ context.Context, ids []string) ([]api.Stats, error) {
	n := int64(7)
	return []api.Stats{{ID: "a", Command: []string{"x"}, Metrics: &spec.Metrics{MaxPids: &n}, Memory: &n, Pids: &n, MemoryLimit: 1, PidsLimit: 2}}, v.note("Stats", ids)
}

func (v *view) Events(ctx context.Context, after uint64, follow bool, f func(api.Event) error) error {
	if err := v.note("Events", []any{after, follow}); err != nil {
		return err
	}
	return v.events(ctx, f)
}

func (v *view) Remove(_ context.Context, id string, force bool) error {
	return v.note("Remove", []any{id, force})
}

func (v *view) Prune(_ context.Context, o *api.PruneOptions) (*api.Pruned, error) {
	return &api.Pruned{Removed: 3, Bytes: 4}, v.note("Prune", *o)
}

func (v *view) Info(context.Context) (*api.Info, error) {
	if err := v.note("Info", v.uid); err != nil {
		return nil, err
	}
	return &api.Info{Version: "1", StateDir: "/s", Pid: 5, Running: 1, Sequence: 9, Started: time.Unix(1, 2).UTC()}, nil
}
