package output

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/capsule-run/capsule/spec"
)

func TestPolicies(t *testing.T) {
	leakCheck(t)
	const mem = memLimit
	all := pattern(3*mem + 7)
	for _, policy := range []spec.OutputPolicy{spec.OutputTruncate, spec.OutputTail, spec.OutputKill} {
		for _, limit := range []int64{0, 1, 4096, mem - 1, mem, mem + 1, 2 * mem, MaxLimit} {
			for _, size := range []int64{0, 1, limit - 1, limit, limit + 1, 2*limit + 3, int64(len(all))} {
				if size < 0 || size > int64(len(all)) {
					continue
				}
				t.Run(fmt.Sprintf("%s/%d/%d", policy, limit, size), func(t *testing.T) {
					var told atomic.Int32
					c := start(t, limit, policy, func() { told.Add(1) })
					c.write(all[:size])
					c.end()
					want := model(all[:size], limit, policy)
					checkKept(t, c, size, want)
					over := size > limit
					if c.Exceeded() != over {
						t.Errorf("Exceeded is %v", !over)
					}
					c.reader()
					if n := told.Load(); (n == 1) != (over && policy == spec.OutputKill) || n > 1 {
						t.Errorf("OnLimit called %d times", n)
					}
				})
			}
		}
	}
}

// reader waits until OnLimit can no longer be under way.
func (c *capture) reader() {
	for {
		c.mu.Lock()
		done := !c.limitHit || c.limitTold || c.cfg.Policy != spec.OutputKill
		c.mu.Unlock()
		if done {
			return
		}
	}
}

// checkKept compares counts, bytes and file with what must be kept.
func checkKept(t *testing.T, c *capture, total int64, want []byte) {
	t.Helper()
	count := spec.StreamCount{BytesTotal: total, BytesKept: int64(len(want)), Truncated: int64(len(want)) < total}
	if got := c.Counts(); got != count {
		t.Errorf("counts %+v, want %+v", got, count)
	}
	if !bytes.Equal(c.bytes(), want) {
		t.Error("wrong bytes")
	}
	file := c.saved()
	if !bytes.Equal(file, want) {
		t.Errorf("wrong file: %d bytes, want %d", len(file), len(want))
	}
	if !bytes.Equal(c.bytes(), want) || !bytes.Equal(c.saved(), want) {
		t.Error("wrong after Save")
	}
	if err := c.Err(); err != nil {
		t.Error(err)
	}
}

// TestStoreAgainstModel drives the store with random chunks, limits and
// moments of spilling.
func TestStoreAgainstModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	all := pattern(1 << 20)
	for round := range 400 {
		dir := t.TempDir()
		d, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		limit := []int64{1, 7, 1000, memLimit, memLimit + 1, 100_000, rotateBuffer + 1, 600_000}[rng.IntN(8)]
		st := store{dir: int(d.Fd()), name: "f", limit: limit, ring: round%4 != 0}
		policy := spec.OutputTruncate
		if st.ring {
			policy = spec.OutputTail
		}
		n := 0
		for biggest := 1 + rng.IntN(1+rng.IntN(fullRead)); n < len(all) && rng.IntN(200) > 0; {
			k := min(1+rng.IntN(biggest), len(all)-n)
			st.append(all[n : n+k])
			n += k
			if rng.IntN(100) == 0 && len(st.mem) > 0 {
				if err := st.spill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		want := model(all[:n], limit, policy)
		got := make([]byte, st.kept())
		if err := st.read(got, st.start()); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("round %d limit %d n %d: %v", round, limit, n, err)
		}
		if err := st.save(); err != nil {
			t.Fatal(err)
		}
		file, err := os.ReadFile(filepath.Join(dir, "f"))
		if len(want) > 0 && err != nil || !bytes.Equal(file, want) {
			t.Fatalf("round %d limit %d n %d: file differs, %v", round, limit, n, err)
		}
		if err := st.read(got, st.start()); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("round %d limit %d n %d: after save: %v", round, limit, n, err)
		}
		if err := st.close(); err != nil {
			t.Fatal(err)
		}
		d.Close() // Read only.
	}
}

func TestRotate(t *testing.T) {
	const b = rotateBuffer
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := pattern(9*b + 5)
	for _, n := range []int{2, b, 2*b + 1, 5 * b, len(all)} {
		for _, first := range []int{1, b - 1, b, b + 1, 2*b + 3, 4 * b, n/2 + 1, n - b - 1, n - 1} {
			if first < 1 || first >= n {
				continue
			}
			if _, err := f.WriteAt(all, 0); err != nil {
				t.Fatal(err)
			}
			if err := rotate(f, int64(n), int64(first)); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(all))
			if _, err := f.ReadAt(got, 0); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, append(append(append([]byte{}, all[first:n]...), all[:first]...), all[n:]...)) {
				t.Errorf("n %d first %d", n, first)
			}
		}
	}
}

func TestSmallOutputMakesNoFile(t *testing.T) {
	c := start(t, 1<<20, spec.OutputTruncate, nil)
	c.write([]byte("hello"))
	c.end()
	if _, err := os.Lstat(filepath.Join(c.dir, "stdout")); !os.IsNotExist(err) {
		t.Error("a file before Save:", err)
	}
	if got := c.saved(); string(got) != "hello" {
		t.Errorf("saved %q", got)
	}
}

func TestOldBytesGoToTheFile(t *testing.T) {
	leakCheck(t)
	c := start(t, 1<<20, spec.OutputTail, nil)
	name := filepath.Join(c.dir, "stdout")
	c.write([]byte("first"))
	waitFile(name, "first")
	c.write([]byte(" second"))
	waitFile(name, "first second")
	c.end()
	checkKept(t, c, 12, []byte("first second"))
}

// waitFile waits until the file has the content; the test's own time-out bounds it.
func waitFile(name, want string) {
	for {
		if b, err := os.ReadFile(name); err == nil && string(b) == want {
			return
		}
	}
}

// TestFileIsNotFollowed plants what a path-based create would follow or reuse.
func TestFileIsNotFollowed(t *testing.T) {
	leakCheck(t)
	c := start(t, 1<<20, spec.OutputTruncate, nil)
	victim := filepath.Join(c.dir, "victim")
	if err := os.Symlink(victim, filepath.Join(c.dir, "stdout")); err != nil {
		t.Fatal(err)
	}
	all := pattern(200_000)
	c.write(all)
	c.end()
	if _, err := os.Lstat(victim); !os.IsNotExist(err) {
		t.Error("the link was followed")
	}
	if err := c.Err(); err == nil || err.Code != "E3004" || err.Errno == 0 {
		t.Error("fault:", err)
	}
	if got := c.Counts(); got != (spec.StreamCount{BytesTotal: 200_000, BytesKept: memLimit, Truncated: true}) {
		t.Errorf("%+v", got)
	}
	if !bytes.Equal(c.bytes(), all[:memLimit]) {
		t.Error("what memory held is lost")
	}
	if c.Save() == nil {
		t.Error("Save succeeded")
	}
}
