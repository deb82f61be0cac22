package events_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/events"
	"github.com/capsule-run/capsule/supervisor/history/guard"
)

func database(t testing.TB, path string) *guard.DB {
	t.Helper()
	db, err := guard.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() }) // some tests close it
	return db
}

func open(t testing.TB, db *guard.DB, keep int) *events.Log {
	t.Helper()
	l, err := events.New(db, keep)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// kept is what a follower is told that does not wait, as "sequence type".
func kept(t testing.TB, l *events.Log, after uint64) (told []string) {
	t.Helper()
	err := l.Follow(t.Context(), after, false, func(e api.Event) error {
		told = append(told, short(e))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return told
}

func short(e api.Event) string {
	s := fmt.Sprint(e.Sequence, " ", e.Type)
	if c := e.Attributes["count"]; c != "" {
		s += " " + c
	}
	return s
}

func appendN(l *events.Log, n int) (last uint64) {
	for i := range n {
		last = l.Append(api.Event{Type: fmt.Sprintf("t%d", i), ExecutionID: "x", Attributes: map[string]string{"a": "b"}})
	}
	return last
}

func TestMemory(t *testing.T) {
	l := open(t, nil, 3)
	if l.Last() != 0 || kept(t, l, 0) != nil {
		t.Error("an empty log is not empty")
	}
	if last := appendN(l, 5); last != 5 || l.Last() != 5 {
		t.Error(last)
	}
	for _, c := range []struct {
		after uint64
		want  []string
	}{
		{0, []string{"3 t2", "4 t3", "5 t4"}},
		{1, []string{"2 events.missed 1", "3 t2", "4 t3", "5 t4"}},
		{2, []string{"3 t2", "4 t3", "5 t4"}},
		{4, []string{"5 t4"}},
		{5, nil},
	} {
		if have := kept(t, l, c.after); !slices.Equal(have, c.want) {
			t.Errorf("after %d: have %v, want %v", c.after, have, c.want)
		}
	}
	err := l.Follow(t.Context(), 6, true, nil)
	if !errors.Is(err, &fault.Fault{Code: fault.OutOfRange}) {
		t.Error(err)
	}
}

func TestAppendKeepsItsOwnCopy(t *testing.T) {
	l := open(t, nil, 3)
	attributes := map[string]string{"count": "1"}
	before := time.Now()
	l.Append(api.Event{Type: "x", Attributes: attributes})
	attributes["count"] = "2"
	given := time.Unix(5, 0)
	l.Append(api.Event{Type: "y", Time: given})
	var told []api.Event
	if err := l.Follow(t.Context(), 0, false, func(e api.Event) error { told = append(told, e); return nil }); err != nil {
		t.Fatal(err)
	}
	if told[0].Attributes["count"] != "1" || told[0].Time.Before(before) || !told[1].Time.Equal(given) {
		t.Errorf("%+v", told)
	}
}

func TestFollow(t *testing.T) {
	l := open(t, nil, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			next := uint64(1)
			err := l.Follow(ctx, 0, true, func(e api.Event) error {
				if e.Sequence != next {
					t.Errorf("have %d, want %d", e.Sequence, next)
				}
				if next++; next > 800 {
					cancel()
				}
				return nil
			})
			if !errors.Is(err, &fault.Fault{Code: fault.Cancelled}) || !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	for range 8 {
		group.Go(func() { appendN(l, 100) })
	}
	group.Wait()
	stop := errors.New("stop")
	if err := l.Follow(t.Context(), 0, true, func(api.Event) error { return stop }); err != stop {
		t.Error(err)
	}
}

// TestSlowFollower holds a follower in its callback while the ring turns: it
// does not hold up Append, and is told how much it missed.
func TestSlowFollower(t *testing.T) {
	l := open(t, nil, 10)
	l.Append(api.Event{Type: "first"})
	entered, release := make(chan struct{}), make(chan struct{})
	var told []string
	done := make(chan error)
	go func() {
		done <- l.Follow(t.Context(), 0, true, func(e api.Event) error {
			if told = append(told, short(e)); len(told) == 1 {
				close(entered)
				<-release
			}
			return nil
		})
	}()
	<-entered
	appendN(l, 100)
	close(release)
	// The close lets the follower finish with what is kept.
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	want := []string{"1 first", "91 events.missed 90"}
	for n := range 10 {
		want = append(want, fmt.Sprintf("%d t%d", 92+n, 90+n))
	}
	if !slices.Equal(told, want) {
		t.Errorf("have %v\nwant %v", told, want)
	}
	if n := l.Append(api.Event{}); n != 0 {
		t.Errorf("a closed log gave out %d", n)
	}
}

func TestRestart(t *testing.T) {
	db := database(t, filepath.Join(t.TempDir(), "db"))
	l := open(t, db, 5)
	appendN(l, 8)
	want := kept(t, l, 0)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, db, 5)
	if have := kept(t, l, 0); !slices.Equal(have, want) {
		t.Errorf("have %v, want %v", have, want)
	}
	if have := kept(t, l, 1); len(have) != 6 || have[0] != "3 events.missed 2" {
		t.Error(have)
	}
	if n := l.Append(api.Event{Type: "next"}); n != 9 {
		t.Errorf("after a clean end the next number is %d", n)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if n := count(t, db); n != 5 {
		t.Errorf("%d events are on the disk", n)
	}
	l = open(t, db, 2)
	if have := kept(t, l, 7); !slices.Equal(have, []string{"8 t7", "9 next"}) {
		t.Error(have)
	}
}

// count is how many events are on the disk.
func count(t *testing.T, db *guard.DB) (n int) {
	t.Helper()
	if err := db.View(func(tx *bbolt.Tx) error { n = tx.Bucket([]byte("events")).Stats().KeyN; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestCrash opens a copy of the file, taken while the log was open: no number
// comes twice, whether the event was written or not.
func TestCrash(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "db")
	db := database(t, path)
	l := open(t, db, 5000)
	highest := appendN(l, 3000)
	for generation := range 3 {
		var image []byte
		// In a transaction, so that no commit is half in the copy.
		if err := db.View(func(*bbolt.Tx) (err error) { image, err = os.ReadFile(path); return err }); err != nil {
			t.Fatal(err)
		}
		path = filepath.Join(dir, fmt.Sprint("db", generation))
		if err := os.WriteFile(path, image, 0o600); err != nil {
			t.Fatal(err)
		}
		db = database(t, path)
		l = open(t, db, 5000)
		if l.Last() < highest {
			t.Errorf("the last number went from %d to %d", highest, l.Last())
		}
		// A follower from before the crash may go on.
		if err := l.Follow(t.Context(), highest, false, func(api.Event) error { return nil }); err != nil {
			t.Error(err)
		}
		if n := l.Append(api.Event{}); n <= highest {
			t.Errorf("%d after %d", n, highest)
		}
		highest = appendN(l, 3000)
	}
}

// TestAppendDoesNotWaitForTheDisk appends while another transaction holds it.
func TestAppendDoesNotWaitForTheDisk(t *testing.T) {
	db := database(t, filepath.Join(t.TempDir(), "db"))
	l := open(t, db, 100)
	held, release, done := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		done <- db.Update(func(*bbolt.Tx) error {
			close(held)
			<-release
			return nil
		})
	}()
	<-held
	// More than one batch, more than the ring: this returns or the test hangs.
	appendN(l, 5000)
	if have := kept(t, l, 0); len(have) != 100 {
		t.Error(len(have))
	}
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	want := kept(t, l, 4900)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, db, 100)
	if have := kept(t, l, 4900); !slices.Equal(have, want) {
		t.Errorf("have %v\nwant %v", have, want)
	}
}

// TestReservationIsRenewed uses up more numbers than one block has.
func TestReservationIsRenewed(t *testing.T) {
	if testing.Short() {
		t.Skip("it appends 1.3 million events")
	}
	db := database(t, filepath.Join(t.TempDir(), "db"))
	l := open(t, db, 10)
	last := uint64(0)
	for deadline := time.Now().Add(time.Minute); last < 1_300_000 && time.Now().Before(deadline); {
		if n := l.Append(api.Event{}); n != 0 {
			if n != last+1 {
				t.Fatalf("%d after %d", n, last)
			}
			last = n
		}
	}
	if last != 1_300_000 {
		t.Errorf("the numbers end at %d", last)
	}
}

func TestDamage(t *testing.T) {
	key := func(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
	for _, c := range []struct {
		name   string
		bucket string
		key    []byte
		after  uint64
		want   []string
	}{
		{"in the middle", "events", key(3), 2, []string{"3 events.missed 1", "4 t3", "5 t4"}},
		{"in the middle, all that is kept", "events", key(3), 0, []string{"4 t3", "5 t4"}},
		{"the oldest", "events", key(1), 0, []string{"2 t1", "3 t2", "4 t3", "5 t4"}},
		{"the newest", "events", key(5), 4, []string{"5 events.missed 1"}},
		{"trimmed", "events_meta", []byte("trimmed"), 3, []string{"4 t3", "5 t4"}},
		{"reserved", "events_meta", []byte("reserved"), 3, []string{"4 t3", "5 t4"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := database(t, filepath.Join(t.TempDir(), "db"))
			l := open(t, db, 10)
			appendN(l, 5)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			err := db.Update(func(tx *bbolt.Tx) error {
				b := tx.Bucket([]byte(c.bucket))
				v := slices.Clone(b.Get(c.key))
				v[len(v)-1] ^= 1
				return b.Put(c.key, v)
			})
			if err != nil {
				t.Fatal(err)
			}
			l = open(t, db, 10)
			if have := kept(t, l, c.after); !slices.Equal(have, c.want) {
				t.Errorf("have %v, want %v", have, c.want)
			}
			if n := l.Append(api.Event{}); n <= 5 {
				t.Errorf("the next number is %d", n)
			}
		})
	}
}

func BenchmarkAppend(b *testing.B) {
	l := open(b, database(b, filepath.Join(b.TempDir(), "db")), 10000)
	b.ReportAllocs()
	for b.Loop() {
		l.Append(api.Event{Type: api.EventStarted, ExecutionID: "0"})
	}
}
