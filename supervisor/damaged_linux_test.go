package supervisor

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// TestDamagedResult: the code is E6006, whatever the decoder's is.
func TestDamagedResult(t *testing.T) {
	id := "6a9e4c2e-1111-4222-8333-123456789abc"
	for _, document := range []string{"", "{", "{}", "\x9a\x00", `{"execution_id":"` + id + `"}`} {
		r := decodeResult(id, time.Now(), []byte(document))
		if r.Status != spec.StatusError || r.Error == nil || r.Error.Code != string(fault.StateUnreadable) {
			t.Errorf("%q: %s", document, r.Encode(false))
		}
	}
}

// TestQueuedWithoutRecord: an execution that waits, and of which nobody can
// know any more what it was, gets a verdict instead of waiting for ever.
func TestQueuedWithoutRecord(t *testing.T) {
	t.Setenv("CAPSULE_STATE", filepath.Join(t.TempDir(), "state"))
	s, err := New(Options{ShimPath: "/bin/false"})
	if err != nil {
		t.Fatal(err)
	}
	id := "6a9e4c2e-1111-4222-8333-123456789abc"
	dir := s.state.Execution(id)
	if err := os.Mkdir(string(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	whole := &shimapi.Record{Version: shimapi.RecordVersion, ExecutionID: id, Created: time.Now()}
	if err := whole.Write(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := s.collect(id, false, remembered{}); err != errWaits {
		t.Fatalf("one that waits is collected: %v", err)
	}
	if err := os.WriteFile(dir.Record(), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := s.collect(id, false, remembered{})
	if err != nil || r.Status != spec.StatusError || r.Error.Code != string(fault.StateUnreadable) {
		t.Fatalf("%v, %v", r, err)
	}
	again, err := s.As(uint32(os.Geteuid())).Wait(t.Context(), id)
	if err != nil || string(again.Encode(false)) != string(r.Encode(false)) {
		t.Errorf("asked again: %v, %v", again, err)
	}
}

// TestStrangeDirectory: whatever stands in an execution's directory, it has a
// verdict, and it can be removed.
func TestStrangeDirectory(t *testing.T) {
	id := "6a9e4c2e-1111-4222-8333-123456789abc"
	for name, path := range map[string]func(layout.Dir) string{"result": layout.Dir.Result, "request": layout.Dir.Request, "times": layout.Dir.Times, "record": layout.Dir.Record} {
		t.Setenv("CAPSULE_STATE", filepath.Join(t.TempDir(), "state"))
		s, err := New(Options{ShimPath: "/bin/false"})
		if err != nil {
			t.Fatal(err)
		}
		dir := s.state.Execution(id)
		if err := os.Mkdir(string(dir), 0o700); err != nil {
			t.Fatal(err)
		}
		rec := &shimapi.Record{Version: shimapi.RecordVersion, ExecutionID: id, Owner: uint32(os.Geteuid()), Created: time.Now()}
		if err := rec.Write(dir); err != nil {
			t.Fatal(err)
		}
		zero := 0
		good := &spec.Response{ExecutionID: id, Status: spec.StatusSuccess, Termination: spec.Termination{Reason: spec.ReasonExited}, ExitCode: &zero}
		if err := os.WriteFile(dir.Result(), good.Encode(false), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(path(dir)); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(path(dir)+"/inside/it", 0o700); err != nil {
			t.Fatal(err)
		}
		c := s.As(uint32(os.Geteuid()))
		r, err := c.Wait(t.Context(), id)
		if lost := name == "result"; err != nil || lost != (r.Termination.Reason == spec.ReasonShimLost) {
			t.Errorf("%s: %v, %v", name, r, err)
		}
		if err := c.Remove(t.Context(), id, true); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Lstat(string(dir)); !os.IsNotExist(err) {
			t.Errorf("%s: it is still there", name)
		}
	}
}
