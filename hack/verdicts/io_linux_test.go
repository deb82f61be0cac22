package verdicts

import (
	"math/rand"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec"
)

// TestReadsAreHeldBack reads a file of which nothing is in the page cache, and
// holds the rate to the bound. A busy machine reads more slowly, never faster;
// that the bound and nothing else slowed it down is told by the control, which
// reads the same without it.
func TestReadsAreHeldBack(t *testing.T) {
	if !enforced(t, 4)[spec.LimitIO] {
		return // the table holds that such a host refuses the limit
	}
	const size, rate = 6 * mib, 2 * mib
	dir := onDisk(t)
	if dir == "" {
		return // nothing that a test could write is on a disk
	}
	path := filepath.Join(dir, "bounded")
	content := make([]byte, size)
	rand.New(rand.NewSource(1)).Read(content)
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	read := func(n int, resources object) *spec.Response {
		evict(t, path)
		r := run(t, newID(0xd0000+n), object{"command": []string{"cat", "/bounded"}, "timeout_ms": ms(time.Minute), "resources": resources,
			"isolation": object{"bind_mounts": []object{{"source": path, "destination": "/bounded"}}}})
		if r.Status != spec.StatusSuccess || *r.ExitCode != 0 || r.Output.Stdout.BytesTotal != size {
			t.Fatalf("%.2000s", r.Encode(true))
		}
		if have := r.Metrics.IOBytesRead; have == nil || *have < size {
			t.Fatalf("read %v bytes of the disk, want %d", show(have), size)
		}
		return r
	}
	free := read(0, object{"max_output_bytes": 0})
	held := read(1, object{"max_output_bytes": 0, "io": object{"read_bytes_per_second": rate}})
	if state := held.Enforcement.Limits[spec.LimitIO]; state != spec.Enforced {
		t.Errorf("io is %q", state)
	}
	// The kernel grants in slices of a tenth of a second, the first at once.
	seconds := *held.Metrics.WallTimeMS / 1000
	if have := float64(*held.Metrics.IOBytesRead) / (seconds + 0.2); have > 1.1*rate {
		t.Errorf("%.0f bytes in a second, the bound is %d", have, rate)
	}
	t.Logf("free %.0f ms, held back %.0f ms", *free.Metrics.WallTimeMS, *held.Metrics.WallTimeMS)
}

// onDisk is a directory of this test on a file system with a block device of
// its own. Empty: there is none.
func onDisk(t *testing.T) string {
	t.Helper()
	var st unix.Stat_t
	for _, dir := range []string{scratch(), "."} {
		if unix.Stat(dir, &st) != nil || unix.Major(st.Dev) == 0 {
			continue
		}
		made, err := os.MkdirTemp(dir, "io-")
		if err != nil {
			continue
		}
		t.Cleanup(func() {
			if err := os.RemoveAll(made); err != nil {
				t.Error(err)
			}
		})
		if err := os.Chmod(made, 0o755); err != nil {
			t.Fatal(err)
		}
		abs, err := filepath.Abs(made)
		if err != nil {
			t.Fatal(err)
		}
		return abs
	}
	return ""
}

// evict writes a file back and takes it out of the page cache.
func evict(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
}
