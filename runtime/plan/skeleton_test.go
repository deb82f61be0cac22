package plan

import (
	"errors"
	"testing"

	"github.com/capsule-run/capsule/spec/fault"
)

// TestSkeletonStaysInside: entries are made relative to the new root before it
// is the root, so a path that climbs would make files on the host.
func TestSkeletonStaysInside(t *testing.T) {
	for _, p := range []string{"", ".", "..", "x", "/", "/../x", "/a/../../x", "//x", "/a/", "/./x", "/a\x00b"} {
		for kind, sk := range map[string]Skeleton{
			"directory": {Directories: []string{p}}, "link": {Symlinks: []Symlink{{Path: p, Target: "/"}}}, "file": {Files: []File{{Path: p}}},
		} {
			s := bare()
			s.Annotations = map[string]string{AnnotationSkeleton: "{}"}
			_, err := Compile(s, Facts{BundleDir: "/bundle", Skeleton: &sk})
			if !errors.Is(err, &fault.Fault{Code: fault.InvalidBundle}) {
				t.Errorf("%s %q: %v", kind, p, err)
			}
		}
	}
}
