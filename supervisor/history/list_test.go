package history_test

import (
	"slices"
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
