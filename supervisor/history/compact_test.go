package history_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"testing"

	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/history"
)

// bulky is the n-th entry with 100 KB of output.
func bulky(n int) history.Entry {
	e := entry(n)
	e.Stdout = bytes.Repeat(fmt.Appendf(nil, "%9d\n", n), 10_000)
	return e
}

// putBulky stores the first n, a few at a time.
func putBulky(t *testing.T, s *history.Store, n int) {
	t.Helper()
	for from := 0; from < n; from += 25 {
		var some []history.Entry
		for i := from; i < min(from+25, n); i++ {
			some = append(some, bulky(i))
		}
		if err := s.Put(some...); err != nil {
			t.Fatal(err)
		}
	}
}

// emptied is a history of which most was removed; those that are left begin with
// the number returned.
func emptied(t *testing.T, path string, n int) (*history.Store, int) {
	t.Helper()
	s, err := history.Open(path, history.Options{})
	if err != nil {
		t.Fatal(err)
	}
	history.CompactLeast(s, 1<<20)
	putBulky(t, s, n)
	s.SetLimits(history.Limits{Count: n / 10})
	if _, err := s.Retain(epoch); err != nil {
		t.Fatal(err)
	}
	s.SetLimits(history.Limits{})
	return s, n * 9 / 10
}

func length(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// TestCompact gives space back while others read and write: what they see and
// store is in the new file.
func TestCompact(t *testing.T) {
	path := file(t)
	s, first := emptied(t, path, 200)
	before := length(t, path)
	count, size := s.Totals()
	// Begun before, read after: it lies in both files.
	half, err := s.Output(id(first), "stdout")
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var others sync.WaitGroup
	for w := range 4 {
		others.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				mine := 1000 + 100_000*w + n
				if err := s.Put(entry(mine)); err != nil {
					t.Error(err)
				}
				same(t, s, entry(mine))
				same(t, s, bulky(first+n%(200-first)))
				if err := s.Remove(id(mine)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done, err := s.Compact()
	close(stop)
	others.Wait()
	if err != nil || done == nil {
		t.Fatal(done, err)
	}
	if after := length(t, path); done.Before != before || after > before/4 {
		t.Errorf("%d bytes became %d, told as %+v", before, after, done)
	}
	if data, err := os.ReadFile(path); err != nil || history.Check(data) != nil {
		t.Error("the new file is not sound:", err, history.Check(data))
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(half); err != nil || !bytes.Equal(b.Bytes(), bulky(first).Stdout) {
		t.Error("an output that was open is cut:", b.Len(), err)
	}
	if c, n := s.Totals(); c != count || n != size {
		t.Errorf("totals were %d, %d and are %d, %d", count, size, c, n)
	}
	if again, err := s.Compact(); again != nil || err != nil {
		t.Error("it is done again at once:", again, err)
	}
	put(t, s, 7777)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, history.Options{})
	if s.Damaged() != "" {
		t.Fatal(s.Damaged())
	}
	same(t, s, entry(7777))
	for n := first; n < 200; n++ {
		same(t, s, bulky(n))
	}
	if s.Has(id(1)) || !s.Known(id(1)) {
		t.Error("what was removed is not what is remembered")
	}
	if page, err := s.List(&api.Filter{All: true, PageSize: 1000}, nil); err != nil || len(page.Executions) != 200-first+1 {
		t.Error(len(page.Executions), err)
	}
}

// TestCompactLittle leaves a file alone of which less than half is free.
func TestCompactLittle(t *testing.T) {
	path := file(t)
	s := open(t, path, history.Options{})
	history.CompactLeast(s, 1<<20)
	putBulky(t, s, 100)
	s.SetLimits(history.Limits{Count: 60})
	if _, err := s.Retain(epoch); err != nil {
		t.Fatal(err)
	}
	before := length(t, path)
	if done, err := s.Compact(); done != nil || err != nil || length(t, path) != before {
		t.Error(done, err)
	}
}

// TestCompactDamaged leaves a file as it is that cannot be copied.
func TestCompactDamaged(t *testing.T) {
	path := file(t)
	s, first := emptied(t, path, 100)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// The page of the body of one that is left: its kind makes no sense.
	at := bytes.Index(data, bulky(first).Stdout[:1000])
	if at < 0 {
		t.Fatal("there is no output in the file")
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{0xFF, 0xFF}, int64(at/4096*4096+8)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if done, err := s.Compact(); err == nil {
		t.Error("a copy was made of a page that makes no sense:", done)
	}
	if _, err := os.Lstat(path + ".compact"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("half a copy is left:", err)
	}
	same(t, s, bulky(99))
	_ = s.Close() // it may refuse
}

// TestCompactLeftOver: what a crash left of a copy goes, whatever it is.
func TestCompactLeftOver(t *testing.T) {
	path := file(t)
	s, err := history.Open(path, history.Options{})
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".compact", []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, history.Options{})
	same(t, s, entry(1))
	if _, err := os.Lstat(path + ".compact"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("half a copy is left:", err)
	}
}
