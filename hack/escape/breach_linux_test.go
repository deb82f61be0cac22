package escape

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// traces are what only a program has that can have a wall taken out: the
// functions of runtime/breach and its users, and the names of walls.
var traces = []string{"shim.breachNamespaces", "shim.withoutOption", "init_dumpable", "no_new_privs+seccomp", "readonly_dev", "detached_root"}

// TestReleasesHaveNoBreach: the programs that are shipped contain nothing of
// it. A program built with the tag does, so the search would find it.
func TestReleasesHaveNoBreach(t *testing.T) {
	if _, err := os.Stat("../../go.mod"); err != nil || rootless() || os.Getenv("CAPSULE_ESCAPE_BREACH") != "" {
		t.Skip("needs the sources, once")
	}
	dir := scratch(t)
	must(t, build(dir+"/release", "", ""))
	must(t, build(dir+"/breach", "breach", "-X github.com/capsule-run/capsule/runtime/breach.wall=none"))
	for _, name := range []string{"capsule-shim", "capsulectl"} {
		for kind, want := range map[string]bool{"release": false, "breach": name == "capsule-shim"} {
			text, err := os.ReadFile(filepath.Join(dir, kind, name))
			must(t, err)
			found := 0
			for _, trace := range traces {
				if bytes.Contains(text, []byte(trace)) {
					found++
				}
			}
			if want && found != len(traces) || !want && found != 0 {
				t.Errorf("%s/%s has %d of %d traces", kind, name, found, len(traces))
			}
		}
	}
}
