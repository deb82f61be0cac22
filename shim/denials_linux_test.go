package shim

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/capsule-run/capsule/runtime/seccomp"
	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// TestWithoutLibrary: in a build without libseccomp a filter is E2003, and only
// the default may be missing, where the request says so.
func TestWithoutLibrary(t *testing.T) {
	dir := t.TempDir()
	helper := filepath.Join(dir, "helper")
	if err := os.WriteFile(helper, []byte("#!/bin/sh\necho E2003 none >&2\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	boot := shimapi.Bootstrap{StateDir: layout.State(dir), SeccompHelper: helper}
	deny := []byte(`{"defaultAction":"SCMP_ACT_ERRNO"}`)
	for _, tc := range []struct {
		filter   spec.Seccomp
		degraded []string
		runs     bool
	}{
		{spec.Seccomp{Name: "default"}, nil, false},
		{spec.Seccomp{Name: "default"}, []string{"memory"}, false},
		{spec.Seccomp{Name: "default"}, []string{"seccomp"}, true},
		{spec.Seccomp{Name: "strict"}, []string{"seccomp"}, false},
		{spec.Seccomp{Custom: deny}, []string{"seccomp"}, false},
	} {
		tr := new(translation)
		err := tr.seccomp(boot, spec.Isolation{Seccomp: tc.filter, AllowDegraded: tc.degraded})
		switch {
		case !tc.runs && (!errors.Is(err, &fault.Fault{Code: fault.Seccomp}) || !errors.Is(err, seccomp.ErrNoLibrary)):
			t.Errorf("%v with %q: %v, want E2003", tc.filter, tc.degraded, err)
		case tc.runs && (err != nil || tr.filter != nil || tr.object != "" || !strings.Contains(strings.Join(tr.warnings, ""), "no system call filter")):
			t.Errorf("%v with %q: %v, filter of %d bytes, warnings %q", tc.filter, tc.degraded, err, len(tr.filter), tr.warnings)
		}
	}
}
