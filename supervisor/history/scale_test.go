package history_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/history"
)

// scale is how many records the benchmarks have. The issue of the history is
// 100,000; the default keeps a run of all benchmarks short.
var scale = flag.Int("history.scale", 10_000, "records in the benchmarks of a large history")

// keep is a file that the benchmarks leave, for use with the programs.
var keep = flag.String("history.keep", "", "where the benchmarks make or find their history; empty: a temporary file")

// realistic is an entry as long as one of a shim, of which every hundredth is uid
// 1001's and every thousandth failed.
func realistic(n int) history.Entry {
	code := 0
	created := epoch.Add(time.Duration(n) * time.Second)
	id := uuid.NewSHA1(uuid.Nil, fmt.Append(nil, n)).String()
	e := history.Entry{Stdout: fmt.Appendf(nil, "out %d\n", n)}
	e.Summary = api.Summary{ID: id, Status: "success", Reason: "exited", Command: []string{"/bin/sh", "-c", "echo out"},
		Labels: map[string]string{"batch": fmt.Sprint(n / 1000)}, ExitCode: &code,
		Created: created, Started: created.Add(20 * time.Millisecond), Completed: created.Add(time.Second)}
	if n%100 == 7 {
		e.Summary.Owner = 1001
	}
	if n%1000 == 7 {
		e.Summary.Status = "error"
	}
	e.Digest = strings.Repeat("0123456789abcdef", 4)
	document, _ := json.Marshal(map[string]any{"execution_id": id, "padding": strings.Repeat("x", 2200)})
	e.Request, e.Response = document[:1400], document
	return e
}

// large is the path of a closed history with scale records.
func large(b *testing.B) string {
	b.Helper()
	path := *keep
	if path == "" {
		path = filepath.Join(b.TempDir(), "history.db")
	}
	s, err := history.Open(path, history.Options{})
	if err != nil {
		b.Fatal(err)
	}
	begun := time.Now()
	count, _ := s.Totals()
	for n := count; n < *scale; n += 500 {
		var entries []history.Entry
		for i := n; i < min(n+500, *scale); i++ {
			entries = append(entries, realistic(i))
		}
		if err := s.Put(entries...); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	b.Logf("%d records made in %v", *scale-count, time.Since(begun))
	return path
}

// BenchmarkLarge are the questions that a person asks of a long history.
func BenchmarkLarge(b *testing.B) {
	path := large(b)
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			s, err := history.Open(path, history.Options{})
			if err != nil {
				b.Fatal(err)
			}
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("open after a kill", func(b *testing.B) {
		for b.Loop() {
			if err := os.Remove(path + ".lock"); err != nil {
				b.Fatal(err)
			}
			s, err := history.Open(path, history.Options{})
			if err != nil {
				b.Fatal(err)
			}
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
	s := open(b, path, history.Options{})
	uid := func(u uint32) *uint32 { return &u }
	for _, c := range []struct {
		name   string
		filter api.Filter
		owner  *uint32
		want   int
	}{
		{"newest", api.Filter{All: true, PageSize: 10}, nil, 10},
		{"owner", api.Filter{All: true, PageSize: 10}, uid(1001), 10},
		{"owner all", api.Filter{All: true, PageSize: 1000}, uid(1001), *scale / 100},
		{"nobody", api.Filter{All: true, PageSize: 10}, uid(4), 0},
		{"status", api.Filter{All: true, PageSize: 1000, Statuses: []string{"error"}}, nil, *scale / 1000},
		{"label", api.Filter{All: true, PageSize: 1000, Labels: map[string]string{"batch": "2"}}, nil, 1000},
		{"id", api.Filter{All: true, PageSize: 10, IDPrefix: realistic(*scale / 2).Summary.ID[:13]}, nil, 1},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				page, err := s.List(&c.filter, nil)
				if c.owner != nil {
					page, err = s.ListOf(&c.filter, *c.owner)
				}
				if err != nil || len(page.Executions) != min(c.want, 1000) {
					b.Fatal(len(page.Executions), c.want, err)
				}
			}
		})
	}
	b.Run("put", func(b *testing.B) {
		n := *scale + int(time.Now().UnixNano()%1e9)
		for b.Loop() {
			n++
			if err := s.Put(realistic(n)); err != nil {
				b.Fatal(err)
			}
			if err := s.Remove(realistic(n).Summary.ID); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("retain owners", func(b *testing.B) {
		s.SetLimits(history.Limits{Owners: history.Owners{Count: 10_000_000}})
		for b.Loop() {
			if _, err := s.Retain(epoch); err != nil {
				b.Fatal(err)
			}
		}
	})
}
