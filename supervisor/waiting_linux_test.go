package supervisor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/admission"
	"github.com/capsule-run/capsule/supervisor/api"
)

// testState is a state directory of the test's own.
func testState(t *testing.T) {
	t.Helper()
	t.Setenv("CAPSULE_STATE", filepath.Join(t.TempDir(), "state"))
}

func testDaemon(t *testing.T, l admission.Limits) *Supervisor {
	t.Helper()
	s, err := NewDaemon(DaemonOptions{Options: Options{ShimPath: "/bin/false"}, Admission: l})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func testID(n int) string { return fmt.Sprintf("6a9e4c2e-1111-4222-8333-%012d", n) }

// waits makes an execution that waits for its turn.
func waits(t *testing.T, s *Supervisor, n int, created time.Time) (layout.Dir, *os.File, *shimapi.Record) {
	t.Helper()
	rec := &shimapi.Record{Version: shimapi.RecordVersion, ExecutionID: testID(n), Owner: uint32(os.Geteuid()), Created: created}
	lock, err := s.write(rec, spec.Default().Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return s.state.Execution(rec.ExecutionID), lock, rec
}

// TestWaitingWithoutDaemon: what waits for a daemon that is dead can be ended
// and removed.
func TestWaitingWithoutDaemon(t *testing.T) {
	testState(t)
	s, err := New(Options{ShimPath: "/bin/false"})
	if err != nil {
		t.Fatal(err)
	}
	_, lock, rec := waits(t, s, 1, time.Now())
	lock.Close()
	c := s.As(uint32(os.Geteuid()))
	if ended, err := c.Kill(t.Context(), rec.ExecutionID, syscall.SIGUSR1, false); ended || err != nil {
		t.Errorf("SIGUSR1: %v, %v", ended, err)
	}
	if ended, err := c.Kill(t.Context(), rec.ExecutionID, syscall.SIGTERM, false); !ended || err != nil {
		t.Errorf("SIGTERM: %v, %v", ended, err)
	}
	r, err := c.Wait(t.Context(), rec.ExecutionID)
	if err != nil || r.Termination.Reason != spec.ReasonKilledByCaller {
		t.Errorf("%v, %v", r, err)
	}
	_, lock, rec = waits(t, s, 2, time.Now())
	lock.Close()
	if err := c.Remove(t.Context(), rec.ExecutionID, true); err != nil {
		t.Error(err)
	}
	if _, err := c.Inspect(t.Context(), rec.ExecutionID); codeOf(err) != fault.NotFound {
		t.Errorf("after rm -f: %v", err)
	}
}

// TestCancelledBeforeItsTurn: a cancelled execution does not run although its
// turn has come, and its result is on disk before anybody is told.
func TestCancelledBeforeItsTurn(t *testing.T) {
	testState(t)
	s := testDaemon(t, admission.Limits{})
	for n := range 50 {
		dir, lock, rec := waits(t, s, n, time.Now())
		place, err := s.admit(rec)
		if err != nil {
			t.Fatal(err)
		}
		m := &minder{s: s, rec: rec, dir: dir, lock: lock, ticket: place, started: make(chan struct{}),
			answered: make(chan struct{}), done: make(chan struct{}), gone: make(chan struct{}), unwanted: make(chan struct{})}
		m.cancel()
		if !m.begin(t.Context()) || m.response.Termination.Reason != spec.ReasonKilledByCaller {
			t.Fatalf("round %d: %v", n, m.response)
		}
		if _, err := os.Lstat(dir.Result()); err != nil {
			t.Fatalf("told and not written down: %v", err)
		}
	}
}

// TestRecoverOrder: those that run are counted before those that wait, and the
// oldest of these has the first turn. A lock that is held for a moment does not
// make one that waits into one that runs.
func TestRecoverOrder(t *testing.T) {
	testState(t)
	s := testDaemon(t, admission.Limits{MaxConcurrent: 1, MaxQueued: 100})
	begun := time.Now().Add(-time.Hour)
	var want []string
	for n := 20; n > 0; n-- {
		if n == 10 {
			continue
		}
		_, lock, rec := waits(t, s, n, begun.Add(-time.Duration(n)*time.Second))
		want = append(want, rec.ExecutionID)
		if n == 5 {
			release := time.AfterFunc(20*time.Millisecond, func() { lock.Close() })
			defer release.Stop()
			continue
		}
		lock.Close()
	}
	dir, lock, _ := waits(t, s, 10, time.Now())
	defer lock.Close()
	if err := os.WriteFile(dir.Log(), nil, 0o600); err != nil { // a shim that runs
		t.Fatal(err)
	}
	r, err := s.Recover(t.Context())
	if err != nil || r.Live != 1 || r.Queued != 19 {
		t.Fatalf("%+v, %v", r, err)
	}
	if q := s.daemon.queue.Snapshot(); q.Running != 1 || q.Queued != 19 {
		t.Errorf("%+v", q)
	}
	var got []string
	err = s.As(0).Events(t.Context(), 0, false, func(e api.Event) error {
		if e.Type == api.EventQueued {
			got = append(got, e.ExecutionID)
		}
		return nil
	})
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("order %v, %v", got, err)
	}
}

// TestHousekeepTakesOver: what is left by one that died before its shim was
// there gets its turn from the daemon that runs.
func TestHousekeepTakesOver(t *testing.T) {
	testState(t)
	s := testDaemon(t, admission.Limits{})
	_, lock, rec := waits(t, s, 1, time.Now())
	lock.Close()
	if _, err := s.Housekeep(); err != nil {
		t.Fatal(err)
	}
	if !s.minds(rec.ExecutionID) {
		t.Error("nobody minds it")
	}
}

// TestStartTwiceAtOnce: of two that start the same, one begins it and the other
// finds it, also before it is recorded.
func TestStartTwiceAtOnce(t *testing.T) {
	testState(t)
	s := testDaemon(t, admission.Limits{})
	dir := s.state.Execution(testID(1))
	lock, err := makeLocked(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	full, err := new(Supervisor).resolve(0, &api.StartRequest{Request: []byte(`{"command":["/bin/true"]}`)})
	if err != nil {
		t.Fatal(err)
	}
	rec := &shimapi.Record{Version: shimapi.RecordVersion, ExecutionID: testID(1), Owner: 0, Created: time.Now(), Digest: digestOf(full.Encode())}
	late := time.AfterFunc(20*time.Millisecond, func() { _ = rec.Write(dir) })
	defer late.Stop()
	started, err := s.As(0).Start(t.Context(), &api.StartRequest{ID: testID(1), Request: []byte(`{"command":["/bin/true"]}`)})
	if err != nil || started.Created {
		t.Errorf("%+v, %v", started, err)
	}
}

// TestStatsOfTooMany: a list that would keep the daemon busy is refused.
func TestStatsOfTooMany(t *testing.T) {
	testState(t)
	s := testDaemon(t, admission.Limits{})
	if _, err := s.As(0).Stats(t.Context(), make([]string, pageMax+1)); codeOf(err) != fault.OutOfRange {
		t.Error(err)
	}
}

// TestResultIsReadOnce: who asks for an execution that has ended does not make
// the daemon read its output, which may be large, again.
func TestResultIsReadOnce(t *testing.T) {
	testState(t)
	s := testDaemon(t, admission.Limits{})
	dir, lock, rec := waits(t, s, 1, time.Now())
	defer lock.Close()
	m := &minder{s: s, rec: rec, dir: dir, done: make(chan struct{}), response: cancelledInQueue(rec)}
	close(m.done)
	s.daemon.minders[rec.ExecutionID] = m
	if err := os.WriteFile(dir.Result(), []byte("not to be read"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := s.As(0).Inspect(t.Context(), rec.ExecutionID)
	if err != nil || d.Summary.Status != string(spec.StatusKilled) || d.Response != m.response {
		t.Errorf("%+v, %v", d, err)
	}
}

// TestEventsOfNobody: what an event about no execution says is for those who see all.
func TestEventsOfNobody(t *testing.T) {
	testState(t)
	s := testDaemon(t, admission.Limits{})
	s.emit(api.EventMisconfigured, "", map[string]string{"error": "blocked_commands: /opt/secret"})
	for uid, told := range map[uint32]bool{0: true, 4242: false} {
		seen := 0
		err := s.As(uid).Events(t.Context(), 0, false, func(e api.Event) error {
			if e.Type == api.EventMisconfigured {
				seen++
				if (len(e.Attributes) > 0) != told {
					t.Errorf("uid %d: %v", uid, e.Attributes)
				}
			}
			return nil
		})
		if err != nil || seen != 1 {
			t.Errorf("uid %d: %d events, %v", uid, seen, err)
		}
	}
}
