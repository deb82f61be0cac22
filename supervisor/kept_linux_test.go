package supervisor

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/shim/shimapi/times"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
)

const keptID = "6a9e4c2e-1111-4222-8333-123456789abc"

// endedWithFiles makes what a shim leaves of an execution with large output: 9
// MiB of stdout in two parts that came a minute apart, and nothing on stderr.
func endedWithFiles(t *testing.T, s *Supervisor) (layout.Dir, []byte, time.Time) {
	t.Helper()
	dir := s.state.Execution(keptID)
	stdout := bytes.Repeat([]byte("0123456789abcde\n"), 9<<16)
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var index, none times.Index
	index.Add(0, 0, begin)
	index.Add(8<<20, 0, begin.Add(time.Minute))
	zero := 0
	r := &spec.Response{ExecutionID: keptID, Status: spec.StatusSuccess, Termination: spec.Termination{Reason: spec.ReasonExited}, ExitCode: &zero,
		Output: &spec.Output{Stdout: spec.StreamCount{BytesTotal: int64(len(stdout)), BytesKept: int64(len(stdout))}}}
	rec := &shimapi.Record{Version: shimapi.RecordVersion, ExecutionID: keptID, Owner: uint32(os.Geteuid()), Created: begin}
	if err := os.Mkdir(string(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string][]byte{dir.Stdout(): stdout, dir.Times(): none.Append(index.Append(nil)), dir.Log(): nil, dir.Result(): r.Encode(false)} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := rec.Write(dir); err != nil {
		t.Fatal(err)
	}
	return dir, stdout, begin
}

// timed writes down what came and when.
type timed struct {
	bytes.Buffer
	said string
}

func attachSince(t *testing.T, c api.Supervisor, since time.Time) *timed {
	t.Helper()
	got := &timed{}
	err := c.Attach(t.Context(), keptID, &api.AttachOptions{Stdout: got, NoFollow: true, Since: since,
		Missed:  func(_ string, n int64) { got.said += fmt.Sprintf("missed %d;", n) },
		LeftOut: func(_ string, n int64) { got.said += fmt.Sprintf("left out %d;", n) },
		Times:   func(_ string, came time.Time) { got.said += came.Format("15:04:05;") },
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestLargeOutputStaysInFiles: it is found where it lies and in the history, by
// time too, and a daemon never has it in a response.
func TestLargeOutputStaysInFiles(t *testing.T) {
	for _, daemon := range []bool{false, true} {
		t.Setenv("CAPSULE_STATE", filepath.Join(t.TempDir(), "state"))
		o := Options{ShimPath: "/bin/false"}
		s, err := New(o)
		if daemon {
			s, err = NewDaemon(DaemonOptions{Options: o})
		}
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		_, stdout, begin := endedWithFiles(t, s)
		c := s.As(uint32(os.Geteuid()))
		for _, collected := range []bool{false, true} {
			if collected {
				if _, err := s.collect(keptID, false, remembered{}); err != nil {
					t.Fatal(err)
				}
			}
			r, err := c.Wait(t.Context(), keptID)
			if err != nil || r.OutputElided != daemon || !daemon && *r.Stdout != string(stdout) {
				t.Errorf("daemon %v, collected %v: elided %v, %v", daemon, collected, r.OutputElided, err)
			}
			if got := attachSince(t, c, time.Time{}); !bytes.Equal(got.Bytes(), stdout) || got.said != "03:04:05;03:05:05;" {
				t.Errorf("daemon %v, collected %v: %d bytes, %s", daemon, collected, got.Len(), got.said)
			}
			if got := attachSince(t, c, begin.Add(time.Second)); !bytes.Equal(got.Bytes(), stdout[8<<20:]) || got.said != "left out 8388608;03:05:05;" {
				t.Errorf("daemon %v, collected %v, since: %d bytes, %s", daemon, collected, got.Len(), got.said)
			}
			if got := attachSince(t, c, begin.Add(time.Hour)); got.Len() != 0 || got.said != "left out 9437184;" {
				t.Errorf("daemon %v, collected %v, since the end: %d bytes, %s", daemon, collected, got.Len(), got.said)
			}
		}
	}
}

// TestLargeOutputThatIsLost: the result says that it is there, and it is not. The
// verdict is then no success, and nothing is made up.
func TestLargeOutputThatIsLost(t *testing.T) {
	for _, damage := range []func(path string) error{os.Remove, func(path string) error { return os.Truncate(path, 100) }} {
		t.Setenv("CAPSULE_STATE", filepath.Join(t.TempDir(), "state"))
		s, err := New(Options{ShimPath: "/bin/false"})
		if err != nil {
			t.Fatal(err)
		}
		dir, _, _ := endedWithFiles(t, s)
		if err := damage(dir.Stdout()); err != nil {
			t.Fatal(err)
		}
		c := s.As(uint32(os.Geteuid()))
		if _, err := s.collect(keptID, false, remembered{}); err != nil {
			t.Fatal(err)
		}
		r, err := c.Wait(t.Context(), keptID)
		if err != nil || r.Status != spec.StatusError || r.Error.Code != string(fault.StateUnreadable) || r.OutputElided || r.Output.Stdout.BytesKept != 0 || len(r.Warnings) != 1 {
			t.Errorf("%v, %s", err, r.Encode(false))
		}
	}
}
