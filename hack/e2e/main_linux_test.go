package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain makes this process the parent of every orphan, so that a process
// that outlives its execution is a child that begin's check finds.
func TestMain(m *testing.M) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "become subreaper:", err)
		os.Exit(1)
	}
	// capsulectl leaves alone what it finds ignored, as a background job's SIGINT
	// is. A signal that we handle has its default in our children.
	for _, s := range []os.Signal{unix.SIGINT, unix.SIGHUP} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
	code := m.Run()
	if err := os.RemoveAll(scratch()); err != nil {
		fmt.Fprintln(os.Stderr, "remove scratch:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// scratch is the directory of this process for all that its tests share.
var scratch = sync.OnceValue(func() string {
	// Open to everybody: payloads of other user ids are to reach what is
	// bound from it.
	dir, err := os.MkdirTemp(disk(), "capsule-e2e-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		panic(err)
	}
	return dir
})

// disk is a directory for temporary files, if possible not on a tmpfs, of which
// root can have idmapped mounts only since Linux 6.3.
func disk() string {
	for _, dir := range []string{os.TempDir(), "/var/tmp", "/scratch"} {
		var fs unix.Statfs_t
		if unix.Statfs(dir, &fs) == nil && fs.Type != unix.TMPFS_MAGIC && writable(dir) {
			return dir
		}
	}
	return os.TempDir()
}

// stateDir is the state directory that the tests share, so that a system call
// filter is compiled once.
func stateDir() string { return filepath.Join(scratch(), "state") }

// binaries is the directory of capsulectl and its companions.
var binaries = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("CAPSULE_BIN"); dir != "" {
		return filepath.Abs(dir)
	}
	if _, err := os.Stat("../../bin/capsulectl"); err == nil {
		return filepath.Abs("../../bin")
	}
	dir := filepath.Join(scratch(), "bin")
	for _, b := range []struct{ cgo, tags, program string }{
		{"CGO_ENABLED=0", "urfave_cli_no_docs", "capsulectl"},
		{"CGO_ENABLED=0", "urfave_cli_no_docs", "capsule-shim"},
		{"CGO_ENABLED=0", "urfave_cli_no_docs", "capsule-oci"},
		{"CGO_ENABLED=1", "urfave_cli_no_docs,osusergo,netgo", "capsule-seccomp"},
	} {
		build := exec.Command("go", "build", "-tags", b.tags, "-o", dir+"/", "../../cmd/"+b.program)
		build.Env = append(os.Environ(), b.cgo)
		if out, err := build.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %s: %w\n%s", b.program, err, out)
		}
	}
	return dir, nil
})

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

// patient scales a duration to the machine.
func patient(d time.Duration) time.Duration { return d * time.Duration(slow()) }

func strict() bool { return os.Getenv("CAPSULE_TEST_STRICT") == "1" }
