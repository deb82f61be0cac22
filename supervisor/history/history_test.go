package history_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/uuid"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/history"
)

// epoch is when the n-th entry of a test was created, in seconds.
var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// id is the n-th id of a test.
func id(n int) string {
	return uuid.UUID{0: byte(n * 37), 6: 0x40, 8: 0x80, 13: byte(n >> 16), 14: byte(n >> 8), 15: byte(n)}.String()
}

// entry is the n-th entry: created n seconds after epoch, ended a second later.
func entry(n int) history.Entry {
	code := n % 3
	created := epoch.Add(time.Duration(n) * time.Second)
	e := history.Entry{Stdout: fmt.Appendf(nil, "out %d", n), Stderr: fmt.Appendf(nil, "err %d", n)}
	e.Summary = api.Summary{
		ID: id(n), Status: []string{"success", "error", "killed"}[n%3], Reason: "exited", Command: []string{"/bin/true", fmt.Sprint(n)},
		Labels: map[string]string{"n": fmt.Sprint(n), "parity": fmt.Sprint(n % 2)}, Owner: uint32(1000 + n%2), ExitCode: &code,
		Created: created, Started: created.Add(time.Millisecond), Completed: created.Add(time.Second),
	}
	e.Digest = fmt.Sprintf("digest %d", n)
	e.Request, e.Response = fmt.Appendf(nil, `{"n":%d}`, n), fmt.Appendf(nil, `{"execution_id":%q}`, id(n))
	return e
}

// open opens a history that is closed at the end of the test.
func open(t testing.TB, path string, o history.Options) *history.Store {
	t.Helper()
	s, err := history.Open(path, o)
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

// file is a path whose directory does not exist.
func file(t testing.TB) string { return filepath.Join(t.TempDir(), "deep", "history.db") }

func put(t testing.TB, s *history.Store, numbers ...int) {
	t.Helper()
	var entries []history.Entry
	for _, n := range numbers {
		entries = append(entries, entry(n))
	}
	if err := s.Put(entries...); err != nil {
		t.Fatal(err)
	}
}

// same fails unless s has the n-th entry, whole.
func same(t testing.TB, s *history.Store, want history.Entry) {
	t.Helper()
	r, err := s.Get(want.Summary.ID)
	if err != nil {
		t.Fatal(err)
	}
	have, expected := fmt.Sprintf("%+v %d", r.Summary, *r.Summary.ExitCode), fmt.Sprintf("%+v %d", want.Summary, *want.Summary.ExitCode)
	// The pointer itself differs.
	r.Summary.ExitCode, want.Summary.ExitCode = nil, nil
	if fmt.Sprintf("%+v", r.Summary) != fmt.Sprintf("%+v", want.Summary) {
		t.Errorf("have %s\nwant %s", have, expected)
	}
	if r.Digest != want.Digest || !bytes.Equal(r.Request, want.Request) || !bytes.Equal(r.Response, want.Response) {
		t.Errorf("have %+v\nwant %+v", r, want.Record)
	}
	for stream, data := range map[string][]byte{"stdout": want.Stdout, "stderr": want.Stderr} {
		if have := output(t, s, want.Summary.ID, stream); !bytes.Equal(have, data) {
			t.Errorf("%s: have %d bytes, want %d", stream, len(have), len(data))
		}
	}
}

func output(t testing.TB, s *history.Store, id, stream string) []byte {
	t.Helper()
	r, err := s.Output(id, stream)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func code(err error) fault.Code {
	var f *fault.Fault
	if errors.As(err, &f) {
		return f.Code
	}
	return ""
}

func TestPutAndGet(t *testing.T) {
	path := file(t)
	s := open(t, path, history.Options{})
	put(t, s, 1, 2, 3)
	for n := 1; n <= 3; n++ {
		same(t, s, entry(n))
	}
	for _, c := range []struct {
		name string
		path string
		mode os.FileMode
	}{{"directory", filepath.Dir(path), 0o700 | os.ModeDir}, {"file", path, 0o600}, {"lock", path + ".lock", 0o600}} {
		if info, err := os.Stat(c.path); err != nil || info.Mode() != c.mode {
			t.Errorf("%s: %v, %v", c.name, info.Mode(), err)
		}
	}
	for _, c := range []struct {
		id   string
		want fault.Code
	}{{id(9), fault.NotFound}, {"nonsense", fault.InvalidValue}, {"", fault.InvalidValue}, {"A0000000-0000-4000-8000-000000000000", fault.InvalidValue}} {
		_, get := s.Get(c.id)
		_, out := s.Output(c.id, "stdout")
		if code(get) != c.want || code(out) != c.want || code(s.Remove(c.id)) != c.want || s.Has(c.id) || s.Known(c.id) {
			t.Errorf("%q: %v, %v", c.id, get, out)
		}
	}
	if _, err := s.Output(id(1), "stdin"); code(err) != fault.InvalidValue {
		t.Error(err)
	}
	wrong := entry(4)
	wrong.Summary.ID = "x"
	if err := s.Put(wrong); code(err) != fault.InvalidValue {
		t.Error(err)
	}
	timeless := entry(4)
	timeless.Summary.Created = time.Time{}
	if err := s.Put(entry(5), timeless); code(err) != fault.InvalidValue || s.Has(id(5)) {
		t.Error("half of a Put is stored:", err)
	}
}

func TestTheFirstPutStands(t *testing.T) {
	s := open(t, file(t), history.Options{})
	put(t, s, 1)
	count, size := s.Totals()
	other := entry(1)
	other.Digest, other.Stdout = "another", []byte("another")
	if err := s.Put(other); err != nil {
		t.Fatal(err)
	}
	same(t, s, entry(1))
	if c, b := s.Totals(); c != count || b != size {
		t.Errorf("%d, %d became %d, %d", count, size, c, b)
	}
	if err := s.Remove(id(1)); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(other); err != nil || s.Has(id(1)) || !s.Known(id(1)) {
		t.Error("an execution came back after it was removed:", err)
	}
	if c, b := s.Totals(); c != 0 || b != 0 {
		t.Errorf("%d, %d are left", c, b)
	}
}

func TestRestart(t *testing.T) {
	path := file(t)
	s, err := history.Open(path, history.Options{})
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, 1, 2, 3)
	if err := s.Remove(id(2)); err != nil {
		t.Fatal(err)
	}
	count, size := s.Totals()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, history.Options{})
	if s.Damaged() != "" {
		t.Error("a sound file was set aside:", s.Damaged())
	}
	same(t, s, entry(1))
	same(t, s, entry(3))
	if s.Has(id(2)) || !s.Known(id(2)) || !s.Known(id(1)) || s.Known(id(4)) {
		t.Error("the ids are confused")
	}
	if c, b := s.Totals(); c != count || b != size || c != 2 {
		t.Errorf("%d, %d became %d, %d", count, size, c, b)
	}
}

// TestLargeOutput stores more than one transaction writes, read in every way.
func TestLargeOutput(t *testing.T) {
	path := file(t)
	s := open(t, path, history.Options{})
	e := entry(1)
	e.Stdout = make([]byte, 21<<20+12345)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(e.Stdout) // it never fails
	e.Stderr = e.Stdout[7 : 7+1<<20]
	if err := s.Put(entry(2), e, entry(3)); err != nil {
		t.Fatal(err)
	}
	for _, e := range []history.Entry{entry(2), e, entry(3)} {
		same(t, s, e)
	}
	r, err := s.Output(id(1), "stderr")
	if err != nil {
		t.Fatal(err)
	}
	if err := iotest.TestReader(struct{ io.ReadSeeker }{r}, e.Stderr); err != nil {
		t.Error(err)
	}
	if _, err := r.Seek(-5, io.SeekEnd); err != nil {
		t.Error(err)
	}
	if err := s.Remove(id(1)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); err != nil && code(err) != fault.NotFound {
		t.Error(err)
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		t.Error(err)
	}
	r2, err := s.Output(id(2), "stdout")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(id(2)); err != nil {
		t.Fatal(err)
	}
	if _, err := r2.Read(make([]byte, 1)); code(err) != fault.NotFound {
		t.Error("the output of a removed execution is", err)
	}
	if _, size := s.Totals(); size > 4096 {
		t.Errorf("%d bytes are left", size)
	}
}

func TestConcurrentPut(t *testing.T) {
	s := open(t, file(t), history.Options{})
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for n := range 20 {
				if err := s.Put(entry(worker*20 + n)); err != nil {
					t.Error(err)
				}
				// Another worker's, which may be there or not.
				if err := s.Put(entry((worker*20 + n + 20) % 160)); err != nil {
					t.Error(err)
				}
				if _, err := s.List(nil, nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	for n := range 160 {
		same(t, s, entry(n))
	}
	if count, _ := s.Totals(); count != 160 {
		t.Error(count)
	}
}

func TestKnownIsBounded(t *testing.T) {
	s := open(t, file(t), history.Options{Limits: history.Limits{Count: 1}})
	history.Remember(s, 300)
	const all = 700
	var numbers []int
	for n := range all {
		numbers = append(numbers, n)
	}
	put(t, s, numbers...)
	removed, err := s.Retain(epoch)
	if err != nil || len(removed) != all-1 {
		t.Fatal(len(removed), err)
	}
	if s.Known(id(all-302)) || !s.Known(id(all-301)) || !s.Known(id(all-2)) || !s.Has(id(all-1)) {
		t.Error("not the newest 300 are remembered")
	}
}

func TestPrune(t *testing.T) {
	for _, c := range []struct {
		name    string
		options *api.PruneOptions
		owner   func(uint32) bool
		left    []int
	}{
		{"all", nil, nil, nil},
		{"zero value", &api.PruneOptions{}, nil, nil},
		{"one owner's", nil, func(u uint32) bool { return u == 1000 }, []int{1, 3, 5}},
		{"nobody's", nil, func(uint32) bool { return false }, []int{0, 1, 2, 3, 4, 5}},
		{"before", &api.PruneOptions{Before: epoch.Add(3 * time.Second)}, nil, []int{2, 3, 4, 5}},
		{"label", &api.PruneOptions{Labels: map[string]string{"n": "4"}}, nil, []int{0, 1, 2, 3, 5}},
		{"label of any value", &api.PruneOptions{Labels: map[string]string{"n": ""}}, nil, nil},
		{"label that none has", &api.PruneOptions{Labels: map[string]string{"x": ""}}, nil, []int{0, 1, 2, 3, 4, 5}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t, file(t), history.Options{})
			put(t, s, 0, 1, 2, 3, 4, 5)
			_, before := s.Totals()
			removed, freed, err := s.Prune(c.options, c.owner)
			if err != nil {
				t.Fatal(err)
			}
			count, after := s.Totals()
			if len(removed) != 6-len(c.left) || freed != before-after || count != len(c.left) {
				t.Errorf("%v, %d, totals %d, %d", removed, freed, count, after)
			}
			for n := range 6 {
				if s.Has(id(n)) != slices.Contains(c.left, n) {
					t.Errorf("%d: %t", n, s.Has(id(n)))
				}
			}
		})
	}
}

func TestRetain(t *testing.T) {
	one := func() int64 {
		s := open(t, file(t), history.Options{})
		put(t, s, 0)
		_, size := s.Totals()
		return size
	}()
	now := epoch.Add(10 * time.Second)
	for _, c := range []struct {
		name   string
		limits history.Limits
		left   []int
	}{
		{"none", history.Limits{}, []int{0, 1, 2, 3, 4, 5}},
		{"count", history.Limits{Count: 2}, []int{4, 5}},
		// Entry 4 ended five seconds ago, entry 3 six.
		{"age", history.Limits{Age: 5 * time.Second}, []int{4, 5}},
		{"age of all", history.Limits{Age: time.Millisecond}, nil},
		{"bytes", history.Limits{Bytes: 3*one + 100}, []int{3, 4, 5}},
		{"bytes of none", history.Limits{Bytes: 1}, []int{5}},
		{"the strictest", history.Limits{Age: 8 * time.Second, Count: 3, Bytes: 2*one + 100}, []int{4, 5}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t, file(t), history.Options{Limits: c.limits})
			put(t, s, 0, 1, 2, 3, 4, 5)
			removed, err := s.Retain(now)
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for n := range 6 - len(c.left) {
				want = append(want, id(n))
			}
			if !slices.Equal(removed, want) {
				t.Errorf("removed %v, want %v", removed, want)
			}
			for n := range 6 {
				if s.Has(id(n)) != slices.Contains(c.left, n) {
					t.Errorf("%d: %t", n, s.Has(id(n)))
				}
			}
		})
	}
}

func BenchmarkPut(b *testing.B) {
	for _, workers := range []int{1, 8} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			s := open(b, file(b), history.Options{})
			var group sync.WaitGroup
			numbers := make(chan int)
			for range workers {
				group.Go(func() {
					for n := range numbers {
						if err := s.Put(entry(n)); err != nil {
							b.Error(err)
						}
					}
				})
			}
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				numbers <- n
				n++
			}
			close(numbers)
			group.Wait()
		})
	}
}
