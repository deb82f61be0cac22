package history_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/history"
)

// voluble is the n-th entry with an output of some bytes in all, half a stream.
func voluble(n, size int) history.Entry {
	e := entry(n)
	e.Stdout = bytes.Repeat([]byte{byte('a' + n%26)}, size-size/2)
	e.Stderr = bytes.Repeat([]byte{byte('A' + n%26)}, size/2)
	return e
}

// without fails unless s has the n-th record, and not its output.
func without(t testing.TB, s *history.Store, want history.Entry) {
	t.Helper()
	r, err := s.Get(want.Summary.ID)
	if err != nil {
		t.Fatal(err)
	}
	if !r.OutputDropped || r.StdoutBytes != 0 || r.StderrBytes != 0 || r.Digest != want.Digest || r.Summary.Command[1] != want.Summary.Command[1] ||
		!bytes.Equal(r.Request, want.Request) || !bytes.Equal(r.Response, want.Response) {
		t.Errorf("have %+v\nwant %+v", r, want.Record)
	}
	for _, stream := range []string{"stdout", "stderr"} {
		_, err := s.Output(want.Summary.ID, stream)
		if f := fault.From(err, ""); f == nil || f.Code != fault.NotFound || f.Message() != "read output of execution "+want.Summary.ID+": the output is no longer kept" {
			t.Errorf("%s: %v", stream, err)
		}
	}
}

// retain applies a limit of output to the history at path and closes it.
func retain(t testing.TB, path string, limits history.Limits) (removed []string, bytes int64) {
	t.Helper()
	s, err := history.Open(path, history.Options{Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	if removed, err = s.Retain(epoch); err != nil {
		t.Fatal(err)
	}
	_, bytes = s.Totals()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return removed, bytes
}

// recounted are the totals as a new count finds them.
func recounted(t *testing.T, path string, totals []byte) (count int, bytes, output int64) {
	t.Helper()
	change(t, path, func(tx *bbolt.Tx) error { return tx.Bucket([]byte("meta")).Put([]byte("totals"), totals) })
	s, err := history.Open(path, history.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }() // it was only read
	count, bytes = s.Totals()
	return count, bytes, history.OutputTotal(s)
}

func TestRetainOutput(t *testing.T) {
	sizes := []int{10, 0, 1000, 3 << 20, 9<<20 + 5, 700, 800}
	for _, c := range []struct {
		limit   int64
		dropped int // so many of the oldest, the silent one left out
	}{{0, 0}, {13 << 20, 0}, {12<<20 + 2505, 1}, {12<<20 + 2504, 3}, {12 << 20, 4}, {1500, 5}, {1499, 6}, {800, 6}, {799, 6}, {1, 6}} {
		t.Run(fmt.Sprint(c.limit), func(t *testing.T) {
			path := file(t)
			s, err := history.Open(path, history.Options{})
			if err != nil {
				t.Fatal(err)
			}
			for n, size := range sizes {
				if err := s.Put(voluble(n, size)); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			removed, size := retain(t, path, history.Limits{OutputBytes: c.limit})
			if _, again := retain(t, path, history.Limits{OutputBytes: c.limit}); len(removed) != 0 || size != again {
				t.Errorf("removed %v; %d bytes became %d", removed, size, again)
			}
			count, bytes, output := recounted(t, path, nil)
			if count != len(sizes) || bytes != size {
				t.Errorf("%d executions of %d bytes are counted, totals are %d", count, bytes, size)
			}
			s = open(t, path, history.Options{})
			left := int64(0)
			for n, size := range sizes {
				if n < c.dropped && size > 0 {
					without(t, s, voluble(n, size))
					continue
				}
				same(t, s, voluble(n, size))
				left += int64(size)
			}
			if left != output {
				t.Errorf("%d bytes of output are counted, %d are there", output, left)
			}
			if page, err := s.List(nil, nil); err != nil || len(page.Executions) != len(sizes) {
				t.Error(page, err)
			}
			for n := range sizes {
				if err := s.Remove(id(n)); err != nil {
					t.Error(err)
				}
			}
			if count, bytes := s.Totals(); count != 0 || bytes != 0 || history.OutputTotal(s) != 0 {
				t.Errorf("%d, %d, %d are left", count, bytes, history.OutputTotal(s))
			}
		})
	}
}

// TestOutputGoesBeforeRecords: what fits once output is dropped is not removed.
func TestOutputGoesBeforeRecords(t *testing.T) {
	s := open(t, file(t), history.Options{Limits: history.Limits{Count: 4, Bytes: 40_000, OutputBytes: 25_000}})
	for n := range 5 {
		if err := s.Put(voluble(n, 20_000)); err != nil {
			t.Fatal(err)
		}
	}
	removed, err := s.Retain(epoch)
	if err != nil || len(removed) != 1 || removed[0] != id(0) {
		t.Fatal(removed, err)
	}
	for n := 1; n < 4; n++ {
		without(t, s, voluble(n, 20_000))
	}
	same(t, s, voluble(4, 20_000))
}

// TestReaderWhoseOutputIsDropped reads one chunk before, and would read another after.
func TestReaderWhoseOutputIsDropped(t *testing.T) {
	s := open(t, file(t), history.Options{Limits: history.Limits{OutputBytes: 1}})
	if err := s.Put(voluble(0, 4<<20), entry(1)); err != nil {
		t.Fatal(err)
	}
	r, err := s.Output(id(0), "stdout")
	if err != nil {
		t.Fatal(err)
	}
	half := make([]byte, 1<<20)
	if n, err := r.Read(half); n != len(half) || err != nil {
		t.Fatal(n, err)
	}
	if _, err := s.Retain(epoch); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Read(half); n != 0 || code(err) != fault.NotFound {
		t.Error(n, err)
	}
}

// TestManyOutputs takes more than one transaction, of an older file: its totals
// have two numbers, and its heads know nothing of dropped output.
func TestManyOutputs(t *testing.T) {
	path := file(t)
	s, err := history.Open(path, history.Options{})
	if err != nil {
		t.Fatal(err)
	}
	const all = 300
	var entries []history.Entry
	for n := range all {
		entries = append(entries, voluble(n, 100))
	}
	// Rewriting these fills a transaction of its own.
	entries[3].Request = bytes.Repeat([]byte("r"), 7<<20)
	entries[4].Response = bytes.Repeat([]byte("r"), 7<<20)
	if err := s.Put(entries...); err != nil {
		t.Fatal(err)
	}
	count, size := s.Totals()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if c, b, o := recounted(t, path, history.Seal([]byte("totals"), make([]byte, 16))); c != count || b != size || o != 100*all {
		t.Errorf("counted %d, %d, %d, want %d, %d, %d", c, b, o, count, size, 100*all)
	}
	retain(t, path, history.Limits{OutputBytes: 1000})
	s = open(t, path, history.Options{})
	for n, e := range entries {
		if n < all-10 {
			without(t, s, e)
		} else {
			same(t, s, e)
		}
	}
}

// TestOutputOfDamagedRecord counts and is dropped like any, and the record is
// as unreadable as it was.
func TestOutputOfDamagedRecord(t *testing.T) {
	path := file(t)
	s, err := history.Open(path, history.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 4 {
		if err := s.Put(voluble(n, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	last := func(n byte) func([]byte) bool { return func(k []byte) bool { return k[len(k)-1] == n } }
	change(t, path, func(tx *bbolt.Tx) error {
		if err := flip(tx.Bucket([]byte("records")), last(0)); err != nil {
			return err
		}
		return flip(tx.Bucket([]byte("ids")), last(1))
	})
	_, size := retain(t, path, history.Limits{OutputBytes: 2500})
	if _, bytes, output := recounted(t, path, nil); bytes != size || output != 2000 {
		t.Errorf("%d bytes and %d of output are counted, totals are %d", bytes, output, size)
	}
	s = open(t, path, history.Options{})
	for n := range 2 {
		if _, err := s.Get(id(n)); code(err) != fault.StateUnreadable {
			t.Error(err)
		}
		if err := s.Remove(id(n)); err != nil {
			t.Error(err)
		}
	}
	same(t, s, voluble(2, 1000))
	if page, err := s.List(&api.Filter{All: true}, nil); err != nil || len(page.Executions) != 2 {
		t.Error(page, err)
	}
}

// TestKilledWhileOutputIsDropped kills a child that drops output: every record
// is whole or says that its output is gone, and the totals are of these.
func TestKilledWhileOutputIsDropped(t *testing.T) {
	const variable, all, size = "CAPSULE_TEST_DROP_OUTPUT", 200, 5000
	if path := os.Getenv(variable); path != "" {
		for limit := int64(all * size); limit > 0; limit -= 7 * size {
			retain(t, path, history.Limits{OutputBytes: limit})
			fmt.Println(limit)
		}
		return
	}
	for _, lines := range []int{1, 4, 9, 15} {
		t.Run(strconv.Itoa(lines), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "history.db")
			s, err := history.Open(path, history.Options{})
			if err != nil {
				t.Fatal(err)
			}
			var entries []history.Entry
			for n := range all {
				entries = append(entries, voluble(n, size))
			}
			if err := s.Put(entries...); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilledWhileOutputIsDropped$")
			child.Env = append(os.Environ(), variable+"="+path)
			stdout, err := child.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := child.Start(); err != nil {
				t.Fatal(err)
			}
			said := bufio.NewScanner(stdout)
			for range lines {
				if !said.Scan() {
					t.Fatal("the child ended:", said.Err())
				}
			}
			_ = child.Process.Kill() // it may have ended
			_ = child.Wait()         // it was killed
			s = open(t, path, history.Options{})
			if s.Damaged() != "" {
				t.Fatal("it is damaged:", s.Damaged())
			}
			dropped := 0
			for n := range all {
				if r, err := s.Get(id(n)); err == nil && r.OutputDropped {
					without(t, s, voluble(n, size))
					dropped++
				} else {
					same(t, s, voluble(n, size))
				}
			}
			if n := history.OutputTotal(s); n != int64(all-dropped)*size || dropped < 7*(lines-1) {
				t.Errorf("%d of output are counted, of %d records the output is dropped", n, dropped)
			}
		})
	}
}
