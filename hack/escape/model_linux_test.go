package escape

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestThreatModel: every row of docs/threat-model.md names tests that exist, and
// no row is missing. So the table cannot go stale.
func TestThreatModel(t *testing.T) {
	text, err := os.ReadFile("../../docs/threat-model.md")
	if err != nil {
		t.Skip("needs the sources")
	}
	row := regexp.MustCompile(`(?m)^\| ([AB]\d+) \|.*\|$`)
	evidence := regexp.MustCompile("`([a-z0-9/]+)` (Test[A-Za-z0-9]+)")
	rows := map[string]bool{}
	named := map[string]bool{}
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		if rows[m[1]] {
			t.Errorf("row %s stands twice", m[1])
		}
		rows[m[1]] = true
		tests := evidence.FindAllStringSubmatch(m[0], -1)
		if len(tests) == 0 {
			t.Errorf("row %s names no test", m[1])
		}
		for _, e := range tests {
			named[e[2]] = true
			if !declared(t, e[1], e[2]) {
				t.Errorf("row %s: %s has no %s", m[1], e[1], e[2])
			}
		}
	}
	for section, last := range map[string]int{"A": 22, "B": 14} {
		for i := 1; i <= last; i++ {
			if !rows[fmt.Sprint(section, i)] {
				t.Errorf("row %s%d is missing", section, i)
			}
		}
	}
	if len(rows) != 36 {
		t.Errorf("%d rows", len(rows))
	}
	for _, name := range testsOf(t, ".") {
		if !strings.Contains(string(text), name) {
			t.Errorf("docs/threat-model.md does not name %s", name)
		}
	}
}

// about are tests of the tests.
var about = map[string]bool{"TestMain": true, "TestThreatModel": true, "TestTheWatchSees": true}

func testsOf(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	must(t, err)
	var names []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(t, err)
		for _, m := range regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9]+)\(`).FindAllStringSubmatch(string(text), -1) {
			if !about[m[1]] {
				names = append(names, m[1])
			}
		}
	}
	return names
}

func declared(t *testing.T, pkg, name string) bool {
	t.Helper()
	for _, have := range testsOf(t, filepath.Join("../..", pkg)) {
		if have == name {
			return true
		}
	}
	return false
}

// TestNothingJoins: there is no way for a process to join a sandbox later, so
// none can lack what the first has. When there is one, it has to be tried here.
func TestNothingJoins(t *testing.T) {
	begin(t)
	h := hold(t, nil)
	bin, err := programs()
	must(t, err)
	entries, err := os.ReadDir(filepath.Join(stateDir(), "executions"))
	must(t, err)
	if len(entries) != 1 {
		t.Fatalf("%v", entries)
	}
	cmd := exec.Command(filepath.Join(bin, "capsulectl"), "exec", entries[0].Name(), "--", "/bin/echo", "joined")
	cmd.Env = []string{"CAPSULE_STATE=" + stateDir(), "PATH=/usr/bin:/bin"}
	out, err := cmd.CombinedOutput()
	if err == nil || strings.Contains(string(out), "joined\n") {
		t.Errorf("exec: %v\n%s", err, out)
	}
	h.end()
}
