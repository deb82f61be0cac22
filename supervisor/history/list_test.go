package history_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/history"
)

func ids(page *api.Page) (all []string) {
	for _, e := range page.Executions {
		all = append(all, e.ID)
	}
	return all
}

func numbered(numbers ...int) (all []string) {
	for _, n := range numbers {
		all = append(all, id(n))
	}
	return all
}

func TestList(t *testing.T) {
	s := open(t, file(t), history.Options{})
	put(t, s, 3, 0, 4, 1, 5, 2)
	for _, c := range []struct {
		name   string
		filter *api.Filter
		owner  func(uint32) bool
		want   []string
	}{
		{"no filter", nil, nil, numbered(5, 4, 3, 2, 1, 0)},
		{"those that live", &api.Filter{}, nil, nil},
		{"all", &api.Filter{All: true}, nil, numbered(5, 4, 3, 2, 1, 0)},
		{"one owner's", &api.Filter{All: true}, func(u uint32) bool { return u == 1001 }, numbered(5, 3, 1)},
		{"statuses", &api.Filter{All: true, Statuses: []string{"success", "killed"}}, nil, numbered(5, 3, 2, 0)},
		{"label", &api.Filter{All: true, Labels: map[string]string{"parity": "0"}}, nil, numbered(4, 2, 0)},
		{"labels", &api.Filter{All: true, Labels: map[string]string{"parity": "0", "n": "2"}}, nil, numbered(2)},
		{"label of any value", &api.Filter{All: true, Labels: map[string]string{"n": ""}}, nil, numbered(5, 4, 3, 2, 1, 0)},
		{"prefix", &api.Filter{All: true, IDPrefix: id(3)[:8]}, nil, numbered(3)},
		{"whole id", &api.Filter{All: true, IDPrefix: id(3)}, nil, numbered(3)},
		{"since", &api.Filter{All: true, Since: epoch.Add(4 * time.Second)}, nil, numbered(5, 4)},
		{"first", &api.Filter{All: true, PageSize: 2}, nil, numbered(5, 4)},
	} {
		t.Run(c.name, func(t *testing.T) {
			page, err := s.List(c.filter, c.owner)
			if err != nil {
				t.Fatal(err)
			}
			if have := ids(page); !slices.Equal(have, c.want) {
				t.Errorf("have %v\nwant %v", have, c.want)
			}
			if more := c.filter != nil && c.filter.PageSize != 0; (page.Next != "") != more {
				t.Errorf("next is %q", page.Next)
			}
		})
	}
	for _, c := range []struct {
		filter api.Filter
		want   fault.Code
	}{
		{api.Filter{All: true, PageSize: 1001}, fault.OutOfRange},
		{api.Filter{All: true, PageSize: -1}, fault.OutOfRange},
		{api.Filter{All: true, Page: "?"}, fault.InvalidValue},
		{api.Filter{All: true, Page: "AAAA"}, fault.InvalidValue},
	} {
		if _, err := s.List(&c.filter, nil); code(err) != c.want {
			t.Errorf("%+v: %v", c.filter, err)
		}
	}
}

// TestPagesUnderChange removes and adds records between two pages, also the one
// that the token names: what stood there all the time is seen exactly once.
func TestPagesUnderChange(t *testing.T) {
	s := open(t, file(t), history.Options{})
	for n := range 50 {
		put(t, s, n*2)
	}
	var seen []string
	filter := &api.Filter{All: true, PageSize: 7}
	for turn := 0; ; turn++ {
		page, err := s.List(filter, nil)
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, ids(page)...)
		if filter.Page = page.Next; page.Next == "" {
			break
		}
		last := page.Executions[len(page.Executions)-1]
		if err := s.Remove(last.ID); err != nil {
			t.Fatal(err)
		}
		put(t, s, 101+2*turn) // newer than all
		created, token, err := history.ParsePageToken(page.Next)
		if err != nil || token != last.ID || !created.Equal(last.Created) {
			t.Error(created, token, err)
		}
	}
	var want []string
	for n := 98; n >= 0; n -= 2 {
		want = append(want, id(n))
	}
	if !slices.Equal(seen, want) {
		t.Errorf("have %v\nwant %v", seen, want)
	}
}

// TestSameInstant orders by id what was created in the same nanosecond.
func TestSameInstant(t *testing.T) {
	s := open(t, file(t), history.Options{})
	var want []string
	for n := range 9 {
		e := entry(n)
		e.Summary.Created = epoch
		if err := s.Put(e); err != nil {
			t.Fatal(err)
		}
		want = append(want, id(n))
	}
	slices.Sort(want)
	slices.Reverse(want)
	var seen []string
	for filter := (&api.Filter{All: true, PageSize: 2}); ; {
		page, err := s.List(filter, nil)
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, ids(page)...)
		if filter.Page = page.Next; page.Next == "" {
			break
		}
	}
	if !slices.Equal(seen, want) {
		t.Errorf("have %v\nwant %v", seen, want)
	}
}

// TestListAsChosen compares lists with what the filter says of each record, for
// names and values that JSON writes in another way, or that look like a field.
func TestListAsChosen(t *testing.T) {
	s := open(t, file(t), history.Options{})
	words := []string{"", "a", "<b>&", `"`, `\`, "\xff", "\u2028", `","status":"error","x":"`, `"owner_uid":7,`, "status", "owner_uid", "7", "success"}
	random := rand.New(rand.NewPCG(7, 8))
	word := func() string { return words[random.IntN(len(words))] }
	var all []api.Summary
	var entries []history.Entry
	for n := range 200 {
		e := entry(n)
		e.Summary.Owner = uint32(random.IntN(3)) * 7
		e.Summary.Command = []string{word(), word()}
		e.Summary.Labels = map[string]string{"k": word()}
		for range random.IntN(3) {
			e.Summary.Labels[word()] = word()
		}
		entries = append(entries, e)
	}
	if err := s.Put(entries...); err != nil {
		t.Fatal(err)
	}
	for n := range entries {
		// As it is kept: JSON has no word for some bytes.
		r, err := s.Get(id(n))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r.Summary)
	}
	slices.Reverse(all)
	for range 500 {
		f := &api.Filter{All: true, PageSize: 1000}
		if random.IntN(2) == 0 {
			f.Statuses = []string{[]string{"success", "error", "killed", `er","`}[random.IntN(4)], "success"}[:1+random.IntN(2)]
		}
		if random.IntN(2) == 0 {
			f.Labels = map[string]string{word(): word()}
		}
		if random.IntN(3) == 0 {
			f.IDPrefix = id(random.IntN(200))[:random.IntN(37)]
		}
		owner := uint32(random.IntN(4)) * 7
		var want []string
		for _, e := range all {
			chosen := e.Owner == owner && strings.HasPrefix(e.ID, f.IDPrefix) && (f.Statuses == nil || slices.Contains(f.Statuses, e.Status))
			for k, v := range f.Labels {
				have, ok := e.Labels[k]
				chosen = chosen && ok && (v == "" || v == have)
			}
			if chosen {
				want = append(want, e.ID)
			}
		}
		page, err := s.ListOf(f, owner)
		if err != nil || !slices.Equal(ids(page), want) {
			t.Fatalf("%+v of %d: %v\nhave %v\nwant %v", f, owner, err, ids(page), want)
		}
	}
}
