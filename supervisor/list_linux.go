package supervisor

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/history"
)

// Bounds of a page.
const (
	pageDefault = 100
	pageMax     = 1000
)

// Tokens of pages begin with where the page lies.
const (
	inStateDir = "s"
	inHistory  = "h"
)

// List implements api.Supervisor. Executions that are not in the history yet,
// all that live among them, come first.
func (c *caller) List(_ context.Context, f *api.Filter) (*api.Page, error) {
	size := f.PageSize
	switch {
	case size == 0:
		size = pageDefault
	case size < 0 || size > pageMax:
		return nil, fault.New(fault.OutOfRange, "", "not within 1..1000").WithField("/page_size")
	}
	page := &api.Page{}
	if c.s.daemon == nil {
		// What cannot be collected is shown where it lies.
		_ = c.s.collectAll()
	}
	where, token, _ := strings.Cut(f.Page, ":")
	switch where {
	case "", inStateDir:
		after, err := position(token)
		if err != nil {
			return nil, err
		}
		living, err := c.living(f)
		if err != nil {
			return nil, err
		}
		if after > len(living) {
			after = len(living)
		}
		page.Executions = living[after:]
		if len(page.Executions) > size {
			page.Executions = page.Executions[:size]
			page.Next = inStateDir + ":" + strconv.Itoa(after+size)
			return page, nil
		}
		token = ""
	case inHistory:
	default:
		return nil, badPage()
	}
	if !wantsEnded(f) {
		return page, nil
	}
	return page, c.ended(f, page, token, size-len(page.Executions))
}

func badPage() error {
	return fault.New(fault.InvalidValue, "", "not a token of this supervisor").WithField("/page").WithHint("Begin with an empty page.")
}

func position(token string) (int, error) {
	if token == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(token)
	if err != nil || n < 0 {
		return 0, badPage()
	}
	return n, nil
}

// ended adds up to n executions of the history to a page.
func (c *caller) ended(f *api.Filter, page *api.Page, token string, n int) error {
	if n == 0 {
		page.Next = inHistory + ":" + token
		return nil
	}
	rest := *f
	rest.Page, rest.PageSize, rest.All = token, n, true
	var more *api.Page
	err := c.s.history(func(h *history.Store) (err error) {
		if c.seesAll() {
			more, err = h.List(&rest, nil)
		} else {
			more, err = h.ListOf(&rest, c.uid)
		}
		return err
	})
	if err != nil {
		return err
	}
	// One that was collected between the two looks is not shown twice.
	for _, e := range more.Executions {
		if !slices.ContainsFunc(page.Executions, func(x api.Summary) bool { return x.ID == e.ID }) {
			page.Executions = append(page.Executions, e)
		}
	}
	if more.Next != "" {
		page.Next = inHistory + ":" + more.Next
	}
	return nil
}

// wantsEnded tells whether ended executions can pass a filter.
func wantsEnded(f *api.Filter) bool {
	if len(f.Statuses) == 0 {
		return f.All
	}
	return slices.ContainsFunc(f.Statuses, func(s string) bool { return !(&api.Summary{Status: s}).Live() })
}

// living are the executions of the state directory that pass a filter, newest
// first, those in the foreground of another process among them.
func (c *caller) living(f *api.Filter) ([]api.Summary, error) {
	found, others, err := c.recorded(f)
	if err != nil {
		return nil, err
	}
	found = append(found, c.inForeground(others, f)...)
	slices.SortFunc(found, func(a, b api.Summary) int {
		if d := b.Created.Compare(a.Created); d != 0 {
			return d
		}
		return strings.Compare(b.ID, a.ID)
	})
	return found, nil
}

// recorded are the recorded executions of the state directory that pass a filter,
// in no order, and the ids of those that have no record.
func (c *caller) recorded(f *api.Filter) (found []api.Summary, others []string, err error) {
	entries, err := os.ReadDir(c.s.state.Executions())
	if err != nil {
		return nil, nil, fault.Wrap(fault.IO, "read executions", err)
	}
	for _, entry := range entries {
		id := entry.Name()
		if _, err := executionID(id); err != nil || !strings.HasPrefix(id, f.IDPrefix) {
			continue
		}
		if m := c.s.minder(id); m != nil && !c.owns(m.rec.Owner) {
			continue // one caller's list does not cost what all others run
		}
		e, err := c.s.inState(id)
		switch {
		case errors.Is(err, os.ErrNotExist):
			others = append(others, id)
		case err == nil && c.owns(e.summary.Owner) && passes(&e.summary, f):
			found = append(found, e.summary)
		}
	}
	return found, others, nil
}

func passes(s *api.Summary, f *api.Filter) bool {
	switch {
	case len(f.Statuses) > 0 && !slices.Contains(f.Statuses, s.Status):
		return false
	case len(f.Statuses) == 0 && !f.All && !s.Live():
		return false
	case s.Created.Before(f.Since):
		return false
	}
	for k, want := range f.Labels {
		if have, ok := s.Labels[k]; !ok || want != "" && have != want {
			return false
		}
	}
	return true
}

// Info implements api.Supervisor.
func (c *caller) Info(context.Context) (*api.Info, error) {
	i := &api.Info{StateDir: string(c.s.state), Pid: os.Getpid(), Embedded: c.s.daemon == nil, APIVersions: []string{"v1"}}
	living, err := c.living(&api.Filter{})
	if err != nil {
		return nil, err
	}
	for _, e := range living {
		if e.Status == api.StatusQueued {
			i.Queued++
		} else {
			i.Running++
		}
	}
	// Another process may hold the history; then its size is not known.
	_ = c.s.history(func(h *history.Store) error {
		if i.History, i.HistoryBytes = h.Totals(); !c.seesAll() {
			i.History, i.HistoryBytes = h.TotalsOf(c.uid)
		}
		return nil
	})
	if d := c.s.daemon; d != nil {
		snapshot := d.queue.Snapshot()
		i.Version, i.Started, i.Sequence = d.options.Version, d.started, d.events.Last()
		i.MaxConcurrent, i.MaxQueued, i.MemoryBudget = snapshot.Limits.MaxConcurrent, snapshot.Limits.MaxQueued, snapshot.Limits.MemoryBudget
		i.MemoryInUse, i.Draining = snapshot.Memory, snapshot.Draining
	}
	return i, nil
}
