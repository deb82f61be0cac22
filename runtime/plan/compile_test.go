package plan

import (
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestFresh: the last mount at a path or above it is the one that is seen there.
func TestFresh(t *testing.T) {
	c := &compiler{}
	if c.fresh("/") {
		t.Error("without any mount")
	}
	for _, m := range []madeMount{{"/", true}, {"/a", false}, {"/a/b", true}, {"/over/it", true}, {"/over", false}, {"/twice", false}, {"/twice", true}} {
		c.mounted(m.dest, m.fresh)
	}
	for p, want := range map[string]bool{
		"/": true, "/x/y": true, "/ab": true, "/a": false, "/a/x": false, "/a/bc": false, "/a/b": true, "/a/b/c/d": true,
		"/over/it/x": false, "/over": false, "/twice/x": true,
	} {
		if c.fresh(p) != want {
			t.Errorf("%s: %v", p, c.fresh(p))
		}
	}
}

func TestUpwards(t *testing.T) {
	for p, want := range map[string][]string{"/": {"/"}, "/a": {"/a", "/"}, "/a/bc/d": {"/a/bc/d", "/a/bc", "/a", "/"}} {
		if got := slices.Collect(upwards(p)); !slices.Equal(got, want) {
			t.Errorf("%s: %q", p, got)
		}
	}
}

// TestHidden: a later mount hides those at and below its destination, and no others.
func TestHidden(t *testing.T) {
	var mounts []specs.Mount
	for _, dest := range []string{"/a/b", "/ab", "/a", "/a/b/", "/c", "/c"} {
		mounts = append(mounts, specs.Mount{Destination: dest})
	}
	if got := hiddenOf(mounts); !slices.Equal(got, []bool{true, false, false, false, true, false}) {
		t.Error(got)
	}
}
