package walls

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/capsule-run/capsule/hack/walls/attack"
	"github.com/capsule-run/capsule/shim/host"
	"github.com/capsule-run/capsule/spec"
)

// attackerPath is where the sandbox sees the attacker.
const attackerPath = "/attacker"

// TestMain is also the attacker: "attack NAME..." runs those attacks and
// prints one line for each.
func TestMain(m *testing.M) {
	attack.Main()
	if err := attack.LeaveMounts(); err != nil {
		fmt.Fprintln(os.Stderr, "leave the host's mount namespace:", err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(scratchDir()) // in /tmp; nothing else is left to tell
	os.Exit(code)
}

// scratchDir is the directory of this process for what its tests share.
var scratchDir = sync.OnceValue(func() string {
	dir, err := os.MkdirTemp("/tmp", "capsule-walls-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		panic(err)
	}
	return dir
})

// scratch is a directory below it for one test, searchable by everybody:
// payloads of other user ids are to reach what is bound from it.
func scratch(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(scratchDir(), "")
	must(t, err)
	must(t, os.Chmod(dir, 0o755))
	return dir
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// programs is the directory of capsulectl and its companions: CAPSULE_BIN, or
// built from this tree, so that an old build in bin/ decides nothing.
var programs = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("CAPSULE_BIN"); dir != "" {
		return filepath.Abs(dir)
	}
	dir := filepath.Join(scratchDir(), "bin")
	for _, b := range []struct{ cgo, program string }{
		{"CGO_ENABLED=0", "capsulectl"}, {"CGO_ENABLED=0", "capsule-shim"}, {"CGO_ENABLED=1", "capsule-seccomp"},
	} {
		build := exec.Command("go", "build", "-tags", "urfave_cli_no_docs,osusergo,netgo", "-o", dir+"/", "../../cmd/"+b.program)
		build.Env = append(os.Environ(), b.cgo)
		if out, err := build.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %s: %w\n%s", b.program, err, out)
		}
	}
	return dir, nil
})

// slow is the factor by which this machine is slower than an ordinary one.
var slow = sync.OnceValue(func() int {
	if n, err := strconv.Atoi(os.Getenv("CAPSULE_TEST_SLOW")); err == nil && n > 0 {
		return n
	}
	return 1
})

func patient(d time.Duration) time.Duration { return d * time.Duration(slow()) }

// rootless tells which expectations hold: with one mapped id and no privilege,
// or with a slot of host ids.
func rootless() bool { return os.Geteuid() != 0 }

// idmapped is a directory for one test whose file system supports idmapped
// mounts, as every common one does in the kernels of today; tmpfs does since
// Linux 6.3. Rootless nothing is idmapped, and any directory will do.
func idmapped(t *testing.T) string {
	t.Helper()
	if rootless() {
		return scratch(t)
	}
	for _, parent := range append([]string{"/tmp", os.TempDir(), "/var/tmp"}, openMounts(t)...) {
		dir, err := os.MkdirTemp(parent, "capsule-walls-")
		if err != nil {
			continue
		}
		t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
		must(t, os.Chmod(dir, 0o755))
		r := spec.Default()
		r.Isolation.WritablePaths = []string{dir}
		if facts, err := host.Probe(r, host.Options{}); err == nil && facts.Host.Binds[0].IDMap {
			return dir
		}
	}
	t.Skip("needs a file system with idmapped mounts")
	return ""
}

// openMounts are the mount points of disks that are like /tmp.
func openMounts(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	var points []string
	for line := range strings.Lines(string(text)) {
		head, tail, _ := strings.Cut(line, " - ")
		if !strings.HasPrefix(tail, "ext4 ") {
			continue // and may be one that answers nobody
		}
		point := strings.Fields(head)[4]
		if info, err := os.Stat(point); err == nil && info.IsDir() && info.Mode().Perm() == 0o777 {
			points = append(points, point)
		}
	}
	return points
}

func needRoot(t *testing.T) {
	t.Helper()
	if rootless() {
		t.Skip("needs root: a second user id must be mapped")
	}
}
