package verdicts

import (
	"math/rand"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec"
)

// TestReadsAreHeldBack reads a file of which nothing is in the page cache, and
// holds the rate to the bound. A busy machine reads more slowly, never faster.
// The sandbox has a root of its own, since the system's may be on no disk.
func TestReadsAreHeldBack(t *testing.T) {
	dir := onDisk(t)
	if dir == "" {
		return // nothing that a test could write is on a disk
	}
	const size, rate = 6 * mib, 2 * mib
	content := make([]byte, size)
	rand.New(rand.NewSource(1)).Read(content)
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"payload": program, "data": content} {
		if err := os.MkdirAll(filepath.Join(dir, "opt"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "opt", name), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	root := object{"rootfs": dir}
	read := func(n int, io object) *spec.Response {
		evict(t, filepath.Join(dir, "opt/data"))
		r := run(t, newID(0xd0000+n), object{"command": []string{"/opt/payload", "act", "read", "/opt/data"}, "timeout_ms": ms(time.Minute),
			"resources": object{"io": io}, "isolation": root})
		if r.Status != spec.StatusSuccess || *r.ExitCode != 0 || *r.Stdout != strconv.Itoa(size)+"\n" {
			t.Fatalf("%.2000s", r.Encode(true))
		}
		return r
	}
	if !bounded(t, 8, object{"read_bytes_per_second": rate}, object{"rootfs": dir}) {
		if os.Geteuid() == 0 {
			t.Error("root cannot bound the reads of a disk")
		}
		return // the table holds that such a host refuses the limit
	}
	free := read(0, object{})
	held := read(1, object{"read_bytes_per_second": rate})
	if state := held.Enforcement.Limits[spec.LimitIO]; state != spec.Enforced {
		t.Errorf("io is %q", state)
	}
	for _, r := range []*spec.Response{free, held} {
		if have := r.Metrics.IOBytesRead; have == nil || *have < size {
			t.Errorf("read %v bytes of the disk, want %d", show(have), size)
		}
	}
	// The kernel grants in slices of a tenth of a second, the first at once.
	seconds := *held.Metrics.WallTimeMS / 1000
	if have := size / (seconds + 0.2); have > 1.1*rate {
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
