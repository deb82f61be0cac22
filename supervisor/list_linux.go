package supervisor

import (
	"cmp"
	"context"
	"errors"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

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

// place is where an execution stands in a list: newest first, then by id downwards.
type place struct {
	created time.Time
	id      string
}

// compare is negative when p comes before other.
func (p place) compare(other place) int {
	return cmp.Or(other.created.Compare(p.created), strings.Compare(other.id, p.id))
}

// token continues a list after this place. It holds while executions come and go.
func (p place) token() string {
	return inStateDir + ":" + strconv.FormatInt(p.created.Unix(), 10) + "." + strconv.Itoa(p.created.Nanosecond()) + "." + p.id
}

// placeOf reads what follows the first word of a token. Nothing is the begin of the
// list, nil.
func placeOf(token string) (*place, error) {
	if token == "" {
		return nil, nil
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, badPage()
	}
	seconds, err1 := strconv.ParseInt(parts[0], 10, 64)
	nanoseconds, err2 := strconv.ParseInt(parts[1], 10, 64)
	id, err3 := executionID(parts[2])
	if err1 != nil || err2 != nil || err3 != nil || id != parts[2] || nanoseconds < 0 || nanoseconds >= int64(time.Second) {
		return nil, badPage()
	}
	return &place{time.Unix(seconds, nanoseconds), id}, nil
}

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
		after, err := placeOf(token)
		if err != nil {
			return nil, err
		}
		living, err := c.living(f, after, size+1)
		if err != nil {
			return nil, err
		}
		for _, e := range living[:min(len(living), size)] {
			page.Executions = append(page.Executions, e.summary)
		}
		if len(living) > size {
			page.Next = living[size-1].place().token()
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

// everyLiving is the number of executions that no list of them exceeds.
const everyLiving = math.MaxInt

// living are the first n executions of the state directory behind a place, nil: from the
// begin, that pass a filter, newest first, those in the foreground of another process
// among them. What a daemon minds costs it nothing unless it is shown.
func (c *caller) living(f *api.Filter, after *place, n int) (found []*entry, err error) {
	minders, others, err := c.s.present(f.IDPrefix)
	if err != nil {
		return nil, err
	}
	rest := c.unminded(others, f, true)
	if after != nil {
		// Equal comes before: the place itself was on the page before.
		from, _ := slices.BinarySearchFunc(minders, *after, func(m *minder, p place) int { return cmp.Or(m.place().compare(p), -1) })
		minders = minders[from:]
		from, _ = slices.BinarySearchFunc(rest, *after, func(e *entry, p place) int { return cmp.Or(e.place().compare(p), -1) })
		rest = rest[from:]
	}
	for _, m := range minders {
		for len(rest) > 0 && rest[0].place().compare(m.place()) < 0 {
			found, rest = append(found, rest[0]), rest[1:]
		}
		if len(found) >= n || m.rec.Created.Before(f.Since) {
			break
		}
		if !c.owns(m.rec.Owner) || !strings.HasPrefix(m.rec.ExecutionID, f.IDPrefix) {
			continue
		}
		if e, err := m.entry(); err == nil && passes(&e.summary, f) {
			found = append(found, e)
		}
	}
	found = append(found, rest...)
	return found[:min(len(found), n)], nil
}

// present are those who mind an execution, the newest first, and the ids of the
// executions in the state directory that nobody minds. Of those whose id does not begin
// with the prefix some may be missing.
func (s *Supervisor) present(prefix string) (minders []*minder, others []string, err error) {
	if _, err := executionID(prefix); err == nil && prefix != "" {
		if m := s.minder(prefix); m != nil {
			return []*minder{m}, nil, nil
		}
		return nil, []string{prefix}, nil // if it is there
	}
	dir, err := os.Open(s.state.Executions())
	if err != nil {
		return nil, nil, fault.Wrap(fault.IO, "read executions", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, nil, fault.Wrap(fault.IO, "read executions", err)
	}
	// In this order nothing is missed that is taken over meanwhile.
	minders, names = s.minders(names)
	for _, name := range names {
		if _, err := executionID(name); err == nil {
			others = append(others, name)
		}
	}
	return minders, others, nil
}

// unminded reads those of ids that pass a filter, newest first. foreground: those in the
// foreground of another process, too.
func (c *caller) unminded(ids []string, f *api.Filter, foreground bool) (found []*entry) {
	var others []string
	for _, id := range ids {
		if !strings.HasPrefix(id, f.IDPrefix) {
			continue
		}
		e, err := c.s.inState(id)
		switch {
		case errors.Is(err, os.ErrNotExist):
			others = append(others, id)
		case err == nil && c.owns(e.summary.Owner) && passes(&e.summary, f):
			found = append(found, e)
		}
	}
	if foreground {
		found = append(found, c.inForeground(others, f)...)
	}
	slices.SortFunc(found, func(a, b *entry) int { return a.place().compare(b.place()) })
	return found
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
	minders, others, err := c.s.present("")
	if err != nil {
		return nil, err
	}
	for _, m := range minders {
		switch {
		case !c.owns(m.rec.Owner) || isClosed(m.done):
		case m.queued():
			i.Queued++
		default:
			i.Running++
		}
	}
	for _, e := range c.unminded(others, &api.Filter{}, true) {
		if e.summary.Status == api.StatusQueued {
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
