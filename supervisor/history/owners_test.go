package history_test

import (
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/history"
)

// TestOwnersBounds: the oldest of each single owner go, the newest stays, and
// root and the exempt uid are not bound.
func TestOwnersBounds(t *testing.T) {
	for name, c := range map[string]struct {
		owners history.Owners
		keep   int // of the owner who is bound
	}{
		"count":            {history.Owners{Count: 2, Exempt: 6}, 2},
		"bytes":            {history.Owners{Bytes: 1, Exempt: 6}, 1},
		"nothing is bound": {history.Owners{Exempt: 6}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "history.db")
			s, err := history.Open(path, history.Options{Limits: history.Limits{Owners: c.owners}})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close() // read only by now
			var bound []string
			for n := range 12 {
				e := entry(n)
				e.Summary.Owner = []uint32{0, 5, 6}[n%3]
				if e.Summary.Owner == 5 {
					bound = append(bound, e.Summary.ID)
				}
				if err := s.Put(e); err != nil {
					t.Fatal(err)
				}
			}
			if count, _ := s.TotalsOf(5); count != len(bound) {
				t.Errorf("of 5 there are %d", count)
			}
			removed, err := s.Retain(epoch)
			slices.Sort(removed)
			want := slices.Sorted(slices.Values(bound[:len(bound)-c.keep]))
			if err != nil || !slices.Equal(removed, want) {
				t.Errorf("removed %v, %v; want %v", removed, err, want)
			}
			if count, _ := s.Totals(); count != 12-len(want) {
				t.Errorf("%d are left", count)
			}
		})
	}
}

// TestOwnersAreCounted: what is believed of the owners is what the records say,
// whatever came and went since they were counted.
func TestOwnersAreCounted(t *testing.T) {
	t.Run("bounded", func(t *testing.T) { testOwnersAreCounted(t, history.Owners{Count: 30, Bytes: 200_000}) })
	t.Run("asked for", func(t *testing.T) { testOwnersAreCounted(t, history.Owners{}) })
}

func testOwnersAreCounted(t *testing.T, bounds history.Owners) {
	s := open(t, filepath.Join(t.TempDir(), "history.db"), history.Options{})
	s.SetLimits(history.Limits{OutputBytes: 60_000, Owners: bounds})
	random := rand.New(rand.NewPCG(5, 6))
	next := 0
	for range 60 {
		var entries []history.Entry
		for range random.IntN(20) {
			e := entry(next)
			next++
			e.Summary.Owner = uint32(random.IntN(4))
			e.Stdout = make([]byte, random.IntN(9000))
			entries = append(entries, e)
		}
		if err := s.Put(entries...); err != nil {
			t.Fatal(err)
		}
		for range random.IntN(5) {
			if err := s.Remove(id(random.IntN(next + 1))); err != nil && code(err) != fault.NotFound {
				t.Fatal(err)
			}
		}
		if _, err := s.Retain(epoch); err != nil {
			t.Fatal(err)
		}
		s.TotalsOf(0) // by then they are counted, bounds or none
		believed, counted := history.Shares(s)
		if !maps.Equal(believed, counted) {
			t.Fatalf("believed %v\ncounted  %v", believed, counted)
		}
		for uid, have := range counted {
			if count, bytes := s.TotalsOf(uid); int64(count) != have[0] || bytes != have[1] {
				t.Fatalf("of %d there are %d, %d, not %v", uid, count, bytes, have)
			}
			if bounds.Count > 0 && uid != 0 && have[0] > 1 && (have[0] > 30 || have[1] > 200_000) {
				t.Fatalf("%d has %v", uid, have)
			}
		}
	}
}

// TestOwnersAreCountedMeanwhile: what is written while the shares are counted is in them, once.
func TestOwnersAreCountedMeanwhile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.db")
	var all []history.Entry
	for n := range 3000 {
		all = append(all, entry(n))
	}
	for round := range 20 {
		s, err := history.Open(path, history.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Put(all...); err != nil { // known from the second round on
			t.Fatal(err)
		}
		next := len(all) + 2*round
		var writes sync.WaitGroup
		for _, f := range []func() error{
			func() error { return s.Put(entry(next), entry(next+1)) },
			func() error { return s.Remove(id(next - 1)) },
			func() error { s.TotalsOf(0); return nil },
		} {
			writes.Go(func() {
				if err := f(); err != nil {
					t.Error(err)
				}
			})
		}
		writes.Wait()
		if believed, counted := history.Shares(s); !maps.Equal(believed, counted) {
			t.Errorf("believed %v\ncounted  %v", believed, counted)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOwnersTotalsWaitForNoWriter: once they are counted.
func TestOwnersTotalsWaitForNoWriter(t *testing.T) {
	s, err := history.Open(filepath.Join(t.TempDir(), "history.db"), history.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Put(entry(1)); err != nil {
		t.Fatal(err)
	}
	s.TotalsOf(0)
	told := make(chan struct{})
	history.WhileWriting(s, func() {
		go func() {
			s.TotalsOf(0)
			close(told)
		}()
		select {
		case <-told:
		case <-time.After(10 * time.Second):
			t.Error("they wait for the writer")
		}
	})
	<-told
}
