package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec"
)

// pathInside is the PATH that a payload gets.
const pathInside = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"

// optional are programs that a host need not have, even when it is strict.
var optional = []string{"go", "java", "node"}

// needPrograms skips a test for which a sandbox here lacks a program.
func needPrograms(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if findProgram(name) == "" {
			lack(t, !slices.Contains(optional, name), "no "+name+" on this host")
		}
	}
}

// findProgram looks where a payload looks.
func findProgram(name string) string {
	for dir := range strings.SplitSeq(pathInside+":/usr/local/go/bin", ":") {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return filepath.Join(dir, name)
		}
	}
	return ""
}

// needLimits skips a test for which the host does not enforce a limit. Root
// always can; others need a delegated cgroup.
func (c *capsule) needLimits(names ...string) {
	c.Helper()
	o := c.run(object{"command": []string{"true"}})
	o.is(c, exited(0))
	for _, name := range names {
		if o.Enforcement.Limits[name] == spec.Enforced {
			continue
		}
		if os.Geteuid() == 0 || delegated() {
			c.Fatalf("limit %s is %s", name, o.Enforcement.Limits[name])
		}
		lack(c.T, false, "limit "+name+" needs a delegated control group")
	}
}

// delegated tells whether an unprivileged user has a control group to work in:
// a v2 group of its own.
func delegated() bool {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return writable(filepath.Join("/sys/fs/cgroup", path, "cgroup.procs")) && writable(filepath.Join("/sys/fs/cgroup", path))
		}
	}
	return false
}

// lack skips the test, or fails it where the host should have what it lacks.
func lack(t *testing.T, expected bool, why string) {
	t.Helper()
	if expected && strict() {
		t.Fatal(why)
	}
	t.Skip(why)
}

// writable asks the kernel whether this user may write to path.
func writable(path string) bool { return unix.Access(path, unix.W_OK) == nil }
