package escape

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/hack/walls/attack"
)

// attacker is where a sandbox sees this test binary.
const attacker = "/attacker"

// TestMain is also the attacker. It is the parent of every orphan, so that a
// process that outlives its execution is found.
func TestMain(m *testing.M) {
	attack.Main()
	if err := attack.LeaveMounts(); err != nil {
		fmt.Fprintln(os.Stderr, "leave the host's mount namespace:", err)
		os.Exit(1)
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "become subreaper:", err)
		os.Exit(1)
	}
	code := m.Run()
	if err := os.RemoveAll(scratchDir()); err != nil {
		fmt.Fprintln(os.Stderr, "remove scratch:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// scratchDir is the directory of this process for what its tests share, on a
// file system with idmapped mounts where there is one.
var scratchDir = sync.OnceValue(func() string {
	parent := os.TempDir()
	for _, dir := range []string{os.TempDir(), "/var/tmp", "/scratch"} {
		var fs unix.Statfs_t
		if unix.Statfs(dir, &fs) == nil && fs.Type != unix.TMPFS_MAGIC && unix.Access(dir, unix.W_OK) == nil {
			parent = dir
			break
		}
	}
	dir, err := os.MkdirTemp(parent, "capsule-escape-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		panic(err)
	}
	return dir
})

// scratch is a directory below it for one test, open to everybody's search.
func scratch(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(scratchDir(), "")
	must(t, err)
	must(t, os.Chmod(dir, 0o755))
	return dir
}

func stateDir() string { return filepath.Join(scratchDir(), "state") }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// programs is the directory of capsulectl and its companions: CAPSULE_BIN, or
// built from this tree.
var programs = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("CAPSULE_BIN"); dir != "" {
		return filepath.Abs(dir)
	}
	dir := filepath.Join(scratchDir(), "bin")
	return dir, build(dir, "", "")
})

// build compiles the programs into dir, with more build tags and linker flags.
func build(dir, tags, flags string) error {
	for _, b := range []struct{ cgo, tags, program string }{
		{"CGO_ENABLED=0", "urfave_cli_no_docs", "capsulectl"},
		{"CGO_ENABLED=0", "urfave_cli_no_docs", "capsule-shim"},
		{"CGO_ENABLED=1", "urfave_cli_no_docs,osusergo,netgo", "capsule-seccomp"},
	} {
		cmd := exec.Command("go", "build", "-tags", b.tags+","+tags, "-ldflags", "-s -w "+flags, "-o", dir+"/", "../../cmd/"+b.program)
		cmd.Env = append(os.Environ(), b.cgo)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", b.program, err, out)
		}
	}
	return nil
}

// slow is the factor by which this machine is slower than an ordinary one.
var slow = sync.OnceValue(func() int {
	if n, err := strconv.Atoi(os.Getenv("CAPSULE_TEST_SLOW")); err == nil && n > 0 {
		return n
	}
	return 1
})

func patient(d time.Duration) time.Duration { return d * time.Duration(slow()) }

// rounds is how often a race is run: CAPSULE_ESCAPE_ROUNDS, 10,000 for the full
// form, or the few that a quick run can afford.
func rounds(short int) int {
	if n, err := strconv.Atoi(os.Getenv("CAPSULE_ESCAPE_ROUNDS")); err == nil && n > 0 {
		return n
	}
	return max(short/slow(), 10)
}

// rootless tells which expectations hold: with one mapped id and no privilege,
// or with a slot of host ids.
func rootless() bool { return os.Geteuid() != 0 }

// byUser is what is expected as root, or as another user.
func byUser(root, other string) string {
	if rootless() {
		return other
	}
	return root
}

func needRoot(t *testing.T, why string) {
	t.Helper()
	if rootless() {
		t.Skip("needs root: " + why)
	}
}
