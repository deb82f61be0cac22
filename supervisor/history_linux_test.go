package supervisor

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/history"
)

// past puts an ended execution into the history, which wrote "stdout" and
// "errors" and of which all is kept.
func past(t *testing.T, s *Supervisor, id, policy string, created time.Time) {
	t.Helper()
	req, err := spec.DecodeRequest([]byte(`{"command":["x"],"resources":{"output_policy":"` + policy + `"}}`))
	if err != nil {
		t.Fatal(err)
	}
	zero := 0
	r := &spec.Response{ExecutionID: id, Status: spec.StatusSuccess, Termination: spec.Termination{Reason: spec.ReasonExited}, ExitCode: &zero,
		Output:     &spec.Output{Stdout: spec.StreamCount{BytesTotal: 6, BytesKept: 6}, Stderr: spec.StreamCount{BytesTotal: 6, BytesKept: 6}},
		Timestamps: spec.Timestamps{Created: created, Started: &created, Completed: &created}, Warnings: []string{"no swap accounting"}}
	e := history.Entry{Record: history.Record{Request: req.Encode(), Response: r.Encode(false)}, Stdout: []byte("stdout"), Stderr: []byte("errors")}
	e.Summary = api.Summary{ID: id, Owner: uint32(os.Geteuid()), Created: created}
	describe(&e.Summary, r)
	if err := s.history(func(h *history.Store) error { return h.Put(e) }); err != nil {
		t.Fatal(err)
	}
}

// TestOutputThatIsNoLongerKept: the response has nulls and a warning, and
// who attaches misses the bytes.
func TestOutputThatIsNoLongerKept(t *testing.T) {
	t.Setenv("CAPSULE_STATE", filepath.Join(t.TempDir(), "state"))
	s, err := New(Options{ShimPath: "/bin/false"})
	if err != nil {
		t.Fatal(err)
	}
	s.retention = history.Limits{OutputBytes: 1}
	created := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	ids := []string{"6a9e4c2e-1111-4222-8333-000000000000", "6a9e4c2e-1111-4222-8333-000000000001", "6a9e4c2e-1111-4222-8333-000000000002"}
	for i, policy := range []string{"truncate", "tail", "truncate"} {
		past(t, s, ids[i], policy, created.Add(time.Duration(i)*time.Second))
	}
	if err := s.history(func(h *history.Store) error {
		_, err := h.Retain(created)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	c := s.As(uint32(os.Geteuid()))
	for _, id := range ids[:2] {
		r, err := c.Wait(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		d, err := c.Inspect(t.Context(), id)
		if err != nil || !bytes.Equal(d.Response.Encode(false), r.Encode(false)) {
			t.Errorf("inspect: %+v, %v", d, err)
		}
		if r.Stdout != nil || r.Stderr != nil || r.Output.Stdout.BytesTotal != 6 || !slices.Equal(r.Warnings, []string{"no swap accounting", "output is no longer kept"}) {
			t.Errorf("%s", r.Encode(false))
		}
		for _, c := range []struct {
			out, errs int64
			missed    string
		}{{0, 0, "[stdout 6 stderr 6]"}, {4, 6, "[stdout 2]"}, {7, 0, "[stderr 6]"}} {
			if missed, out := attached(t, s, id, c.out, c.errs); missed != c.missed || out != "" {
				t.Errorf("from %d and %d: %q, missed %s", c.out, c.errs, out, missed)
			}
		}
	}
	if missed, out := attached(t, s, ids[2], 2, 3); missed != "[]" || out != "doutors" {
		t.Errorf("the newest: %q, missed %s", out, missed)
	}
	if r, err := c.Wait(t.Context(), ids[2]); err != nil || *r.Stdout != "stdout" || *r.Stderr != "errors" || len(r.Warnings) != 1 {
		t.Errorf("the newest: %v, %v", r, err)
	}
}

// attached is what an attachment from these offsets gets.
func attached(t *testing.T, s *Supervisor, id string, stdout, stderr int64) (missed, written string) {
	t.Helper()
	var w bytes.Buffer
	all := []string{}
	err := s.As(uint32(os.Geteuid())).Attach(t.Context(), id, &api.AttachOptions{Stdout: &w, Stderr: &w, StdoutOffset: stdout, StderrOffset: stderr,
		Missed: func(stream string, n int64) { all = append(all, fmt.Sprint(stream, " ", n)) }})
	if err != nil {
		t.Error(err)
	}
	return fmt.Sprint(all), w.String()
}
