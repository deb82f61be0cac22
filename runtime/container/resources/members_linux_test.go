package resources

import (
	"errors"
	"os"
	"testing"

	"github.com/capsule-run/capsule/spec/fault"
)

// TestDisown: of a group that another stands in place of, nothing is killed or removed, and
// nobody enters it, nor runs outside of it.
func TestDisown(t *testing.T) {
	kept, replaced := t.TempDir(), t.TempDir()
	g := &Group{Path: "/x", Unified: kept, Dirs: map[string]string{"pids": replaced}, Made: []string{kept, replaced}}
	if err := g.identify(); err != nil {
		t.Fatal(err)
	}
	g.Disown()
	if len(g.directories()) != 2 || len(g.Made) != 2 {
		t.Fatalf("disowned what is its own: %+v", g)
	}
	g.Inodes[replaced]++
	g.Disown()
	if list := g.directories(); len(list) != 1 || list[0] != kept || len(g.Made) != 1 || g.Made[0] != kept {
		t.Errorf("left are %v and %v", list, g.Made)
	}
	if dir, _, err := g.Open(); !errors.Is(err, &fault.Fault{Code: fault.Cgroup}) {
		t.Errorf("entered: %v %v", dir, err)
	}
	if err := os.Remove(kept); err != nil {
		t.Fatal(err)
	}
	g.Disown()
	if g.Unified == "" {
		t.Error("what is gone is nobody else's")
	}
}
