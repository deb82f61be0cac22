package auditlog

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAuditCutsCommands(t *testing.T) {
	for _, c := range []struct {
		command []string
		n       int
		cut     bool
	}{
		{[]string{"a", "b"}, 2, false},
		{[]string{"a", strings.Repeat("é", mostCommand)}, 2, true},
		{append([]string{strings.Repeat("x", mostCommand)}, "y"), 1, true},
	} {
		got, was := cut(c.command)
		size := 0
		for _, arg := range got {
			size += len(arg)
		}
		if len(got) != c.n || was != c.cut || size > mostCommand {
			t.Errorf("%d arguments, %v, %d bytes", len(got), was, size)
		}
	}
}

func TestAppendRotates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit")
	for range 20 {
		if err := Append(path, &Line{Type: "admission", ExecutionID: strings.Repeat("x", 30)}, 200, 2); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]bool{path: true, path + ".1": true, path + ".2": true, path + ".3": false} {
		info, err := os.Stat(name)
		if (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && (info.Size() > 200 || info.Mode().Perm() != 0o600) {
			t.Errorf("%s: %d bytes, %v", name, info.Size(), info.Mode())
		}
	}
	if err := Append(filepath.Join(path, "below"), &Line{}, 0, 1); err == nil {
		t.Error("a line that was not written is not told")
	}
}
