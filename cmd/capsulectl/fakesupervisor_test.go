package main

import (
	"context"
	"io"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
)

// fakeSupervisor is an api.Supervisor over a map. It writes down what it is
// asked for, and loses its connection where a test wants it to.
type fakeSupervisor struct {
	mu         sync.Mutex
	executions []*fakeRecord
	calls      []string
	starts     []*api.StartRequest
	filter     *api.Filter
	prune      *api.PruneOptions
	info       api.Info
	stats      [][]api.Stats
	events     []api.Event
	pageSize   int
	// lose, when not nil, may fail a call by its name before anything is done.
	lose func(call string) error
	// stdin is what attachments passed on.
	stdin strings.Builder
}

// fakeRecord is one execution.
type fakeRecord struct {
	api.Details
	out, errs string
	// dropped: out and errs are no longer kept.
	dropped bool
	// ended is closed when the execution has ended.
	ended chan struct{}
	once  sync.Once
	// onKill acts on a signal that is delivered; nil: it ends.
	onKill func(sig syscall.Signal, all bool)
}

func (r *fakeRecord) end() { r.once.Do(func() { close(r.ended) }) }

// add stores an execution; with a nil response it lives.
func (f *fakeSupervisor) add(id string, response *spec.Response, command ...string) *fakeRecord {
	r := &fakeRecord{ended: make(chan struct{})}
	r.ID, r.Command, r.Response = id, command, response
	r.Created = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r.Started = r.Created.Add(time.Second)
	r.Status = api.StatusRunning
	r.Request = spec.Default()
	r.Request.Command = command
	if response != nil {
		response.ExecutionID = id
		r.Status, r.Reason = string(response.Status), string(response.Termination.Reason)
		r.ExitCode, r.Signal = response.ExitCode, response.Signal
		r.Completed = r.Started.Add(1500 * time.Millisecond)
		r.end()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.executions = append(f.executions, r)
	return r
}

// called writes a call down.
func (f *fakeSupervisor) called(name string, args ...string) error {
	f.mu.Lock()
	f.calls = append(f.calls, strings.Join(append([]string{name}, args...), " "))
	f.mu.Unlock()
	if f.lose != nil {
		return f.lose(name)
	}
	return nil
}

func (f *fakeSupervisor) log() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.calls, "; ")
}

func (f *fakeSupervisor) find(id string) (*fakeRecord, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.executions {
		if r.ID == id {
			return r, nil
		}
	}
	return nil, fault.New(fault.NotFound, "", "there is no execution "+id)
}

func (f *fakeSupervisor) Start(_ context.Context, r *api.StartRequest) (*api.Started, error) {
	if err := f.called("start"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.starts = append(f.starts, r)
	f.mu.Unlock()
	if x, err := f.find(r.ID); err == nil {
		return &api.Started{Summary: x.Summary}, nil
	}
	x := f.add(r.ID, nil, "started")
	return &api.Started{Summary: x.Summary, Created: true}, nil
}

func (f *fakeSupervisor) Wait(ctx context.Context, id string) (*spec.Response, error) {
	if err := f.called("wait"); err != nil {
		return nil, err
	}
	r, err := f.find(id)
	if err != nil {
		return nil, err
	}
	select {
	case <-r.ended:
	case <-ctx.Done():
		return nil, fault.Wrap(fault.Cancelled, "wait", ctx.Err())
	}
	if r.Response == nil {
		return exited(0), nil
	}
	return r.Response, nil
}

func (f *fakeSupervisor) Kill(_ context.Context, id string, sig syscall.Signal, all bool) (bool, error) {
	how := sig.String()
	if all {
		how = "all"
	}
	if err := f.called("kill", how); err != nil {
		return false, err
	}
	r, err := f.find(id)
	if err != nil {
		return false, err
	}
	select {
	case <-r.ended:
		return false, nil
	default:
	}
	if r.onKill != nil {
		r.onKill(sig, all)
	} else {
		r.Response = signalled(spec.StatusKilled, spec.ReasonKilledByCaller, int(sig))
		r.end()
	}
	return true, nil
}

func (f *fakeSupervisor) Attach(ctx context.Context, id string, o *api.AttachOptions) error {
	if err := f.called("attach"); err != nil {
		return err
	}
	r, err := f.find(id)
	if err != nil {
		return err
	}
	if o.Stdin != nil {
		data, _ := io.ReadAll(o.Stdin)
		f.stdin.Write(data)
	}
	give := func(w io.Writer, text, stream string, from int64) {
		switch {
		case w == nil || from >= int64(len(text)):
		case r.dropped:
			o.Missed(stream, int64(len(text))-from)
		default:
			_, _ = io.WriteString(w, text[from:])
		}
	}
	give(o.Stdout, r.out, "stdout", o.StdoutOffset)
	give(o.Stderr, r.errs, "stderr", o.StderrOffset)
	if o.NoFollow {
		return nil
	}
	select {
	case <-r.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *fakeSupervisor) List(_ context.Context, filter *api.Filter) (*api.Page, error) {
	if err := f.called("list"); err != nil {
		return nil, err
	}
	copied := *filter
	f.filter = &copied
	f.mu.Lock()
	defer f.mu.Unlock()
	page := &api.Page{}
	from := 0
	for i, r := range f.executions {
		if r.ID == filter.Page {
			from = i
		}
	}
	size := filter.PageSize
	if f.pageSize > 0 {
		size = min(size, f.pageSize)
	}
	for _, r := range f.executions[from:] {
		if !filter.All && !r.Live() || !strings.HasPrefix(r.ID, filter.IDPrefix) {
			continue
		}
		if len(page.Executions) == size {
			page.Next = r.ID
			break
		}
		page.Executions = append(page.Executions, r.Summary)
	}
	return page, nil
}

func (f *fakeSupervisor) Inspect(_ context.Context, id string) (*api.Details, error) {
	if err := f.called("inspect"); err != nil {
		return nil, err
	}
	r, err := f.find(id)
	if err != nil {
		return nil, err
	}
	return &r.Details, nil
}

func (f *fakeSupervisor) Stats(_ context.Context, ids []string) ([]api.Stats, error) {
	if err := f.called("stats", ids...); err != nil {
		return nil, err
	}
	if len(f.stats) == 0 {
		return nil, nil
	}
	now := f.stats[0]
	f.stats = f.stats[1:]
	return now, nil
}

func (f *fakeSupervisor) Events(_ context.Context, after uint64, _ bool, to func(api.Event) error) error {
	if err := f.called("events"); err != nil {
		return err
	}
	for _, e := range f.events {
		if e.Sequence <= after {
			continue
		}
		if err := to(e); err != nil {
			return err
		}
		if f.lose != nil {
			if err := f.lose("event"); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *fakeSupervisor) Remove(_ context.Context, id string, force bool) error {
	how := ""
	if force {
		how = "force"
	}
	if err := f.called("remove", how); err != nil {
		return err
	}
	r, err := f.find(id)
	if err == nil && r.Live() && !force {
		err = fault.New(fault.InvalidValue, "remove", "it has not ended").WithHint("Stop it, or give --force.")
	}
	return err
}

func (f *fakeSupervisor) Prune(_ context.Context, o *api.PruneOptions) (*api.Pruned, error) {
	if err := f.called("prune"); err != nil {
		return nil, err
	}
	f.prune = o
	return &api.Pruned{Removed: 2, Bytes: 2048}, nil
}

func (f *fakeSupervisor) Info(context.Context) (*api.Info, error) {
	if err := f.called("info"); err != nil {
		return nil, err
	}
	return &f.info, nil
}

var _ api.Supervisor = (*fakeSupervisor)(nil)
