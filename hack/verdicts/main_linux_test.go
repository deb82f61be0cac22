package verdicts

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

// TestMain is the payload when it is called as one, and otherwise the parent of
// every orphan, so that what outlives its execution is found.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "act" {
		act(os.Args[2], os.Args[3:])
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

// scratch is a directory that payloads of other user ids can reach.
var scratch = sync.OnceValue(func() string {
	dir, err := os.MkdirTemp("", "capsule-verdicts-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		panic(err)
	}
	return dir
})

func stateDir() string { return filepath.Join(scratch(), "state") }

// programs is the directory of capsulectl and its companions.
func programs() string {
	dir := os.Getenv("CAPSULE_BIN")
	if dir == "" {
		dir = "../../bin"
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		panic(err)
	}
	return dir
}

// slow is the factor by which this machine is slower than an ordinary one.
func slow() int {
	if n, err := strconv.Atoi(os.Getenv("CAPSULE_TEST_SLOW")); err == nil && n > 0 {
		return n
	}
	return 1
}

// ms is a duration on this machine, in milliseconds.
func ms(d time.Duration) int64 { return (d * time.Duration(slow())).Milliseconds() }
