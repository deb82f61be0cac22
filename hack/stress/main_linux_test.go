package stress

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain makes this process the parent of every orphan, so that whatever
// outlives its execution is a child of ours. In a sandbox it is a payload.
func TestMain(m *testing.M) {
	if name := os.Getenv("STRESS_PAYLOAD"); name != "" {
		os.Exit(payload(name))
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "become subreaper:", err)
		os.Exit(1)
	}
	code := m.Run()
	if err := os.RemoveAll(scratch()); err != nil {
		fmt.Fprintln(os.Stderr, "remove scratch:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// scratch is the directory of this process for all that its tests share. It
// lies directly below /tmp and is open to everybody: payloads have other ids.
var scratch = sync.OnceValue(func() string {
	dir, err := os.MkdirTemp("/tmp", "capsule-stress-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		panic(err)
	}
	return dir
})

// state is the state directory that most tests share.
func state() string { return filepath.Join(scratch(), "state") }

// binaries is the directory of the programs under test.
func binaries(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("CAPSULE_BIN")
	if dir == "" {
		dir = "../../bin"
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir + "/capsulectl"); err != nil {
		t.Fatalf("run make build, or set CAPSULE_BIN: %v", err)
	}
	return dir
}

// slow is the factor by which this machine is slower than an ordinary one.
var slow = sync.OnceValue(func() int {
	for _, name := range []string{"CAPSULE_TEST_SCALE", "CAPSULE_TEST_SLOW"} {
		if n, err := strconv.Atoi(os.Getenv(name)); err == nil && n > 0 {
			return n
		}
	}
	if os.Getenv("VMTEST") != "" {
		return 10
	}
	return 1
})

// scaled divides a count on a slow machine. Emulated ones make processes more
// slowly by far than they do everything else.
func scaled(n int) int {
	if slow() == 1 {
		return n
	}
	return max(n/(4*slow()), 2)
}

// patient multiplies a bound on a slow machine.
func patient(d time.Duration) time.Duration { return d * time.Duration(slow()) }

func needRoot(t *testing.T, why string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip(why + " needs root")
	}
}
