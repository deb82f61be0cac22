package plan

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// originOf is a configuration that shim/bundle wrote, with its host.
func originOf(t *testing.T, file string) Origin {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var s specs.Spec
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	return Origin{&s, goldenFacts(strings.TrimSuffix(filepath.Base(file), ".json"), &s)}
}

// TestRebind: what Rebind makes is what Compile makes, for every configuration and
// whatever may differ; for what may not it makes nothing.
func TestRebind(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) < 5 {
		t.Fatalf("configurations: %v, %v", files, err)
	}
	for _, file := range files {
		for name, tc := range map[string]struct {
			change func(*specs.Spec, *Facts)
			apart  bool
		}{
			"nothing":     {change: func(*specs.Spec, *Facts) {}},
			"command":     {change: func(s *specs.Spec, _ *Facts) { s.Process.Args = []string{"sh", "-c", "true"} }},
			"path":        {change: func(s *specs.Spec, _ *Facts) { s.Process.Args = []string{"/bin/true"} }},
			"environment": {change: func(s *specs.Spec, _ *Facts) { s.Process.Env = []string{"PATH=/a:/b", "A=b"} }},
			"rlimits":     {change: func(s *specs.Spec, _ *Facts) { s.Process.Rlimits[0].Soft-- }},
			"stdin":       {change: func(_ *specs.Spec, f *Facts) { f.NoStdin = !f.NoStdin }},
			"id":          {change: func(s *specs.Spec, _ *Facts) { s.Annotations[AnnotationExecutionID] = "another" }},
			"resources":   {change: func(s *specs.Spec, _ *Facts) { s.Linux.Resources = &specs.LinuxResources{} }},
			"no rlimits":  {change: func(s *specs.Spec, _ *Facts) { s.Process.Rlimits = nil }, apart: true},
			"user":        {change: func(s *specs.Spec, _ *Facts) { s.Process.User.UID++ }, apart: true},
			"directory":   {change: func(s *specs.Spec, _ *Facts) { s.Process.Cwd = "/" }, apart: true},
			"hostname":    {change: func(s *specs.Spec, _ *Facts) { s.Hostname += "x" }, apart: true},
			"mount":       {change: func(s *specs.Spec, _ *Facts) { s.Mounts = s.Mounts[1:] }, apart: true},
			"mapping":     {change: func(s *specs.Spec, _ *Facts) { s.Linux.UIDMappings[0].HostID++ }, apart: true},
			"masked":      {change: func(s *specs.Spec, _ *Facts) { s.Linux.MaskedPaths = s.Linux.MaskedPaths[1:] }, apart: true},
			"skeleton":    {change: func(s *specs.Spec, _ *Facts) { s.Annotations[AnnotationSkeleton] = `{"size_bytes":4096}` }, apart: true},
			"kind":        {change: func(_ *specs.Spec, f *Facts) { f.Kinds["/proc/acpi"] = KindMissing }, apart: true},
			"filter":      {change: func(s *specs.Spec, f *Facts) { s.Linux.Seccomp, f.Filter = &specs.LinuxSeccomp{}, make([]byte, 32) }, apart: true},
			"bundle":      {change: func(_ *specs.Spec, f *Facts) { f.BundleDir += "x" }, apart: true},
			"tasks":       {change: func(_ *specs.Spec, f *Facts) { f.Tasks++ }, apart: true},
			"landlock":    {change: func(_ *specs.Spec, f *Facts) { f.Landlock = LandlockLeast }, apart: true},
		} {
			t.Run(filepath.Base(file)+"/"+name, func(t *testing.T) {
				from, to := originOf(t, file), originOf(t, file)
				tc.change(to.Spec, &to.Facts)
				p, err := Compile(from.Spec, from.Facts)
				if err != nil {
					t.Fatal(err)
				}
				got, err := p.Rebind(from, to)
				if err != nil || tc.apart != (got == nil) {
					t.Fatalf("rebound: %v, %v", got != nil, err)
				}
				if tc.apart {
					return
				}
				want, err := Compile(to.Spec, to.Facts)
				if err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(got, want) {
					t.Error("the plan is not the one that Compile makes")
				}
			})
		}
	}
}

// TestRebindRefuses what Compile refuses.
func TestRebindRefuses(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.json")
	for name, change := range map[string]func(*specs.Spec){
		"no arguments": func(s *specs.Spec) { s.Process.Args = nil },
		"NUL":          func(s *specs.Spec) { s.Process.Args = []string{"true", "a\x00b"} },
		"NUL in env":   func(s *specs.Spec) { s.Process.Env = []string{"A=\x00"} },
		"long PATH": func(s *specs.Spec) {
			s.Process.Args, s.Process.Env = []string{"true"}, []string{"PATH=" + strings.Repeat("/a:", 70)}
		},
		"resources": func(s *specs.Spec) {
			s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Swap: new(int64(1))}}
		},
	} {
		from, to := originOf(t, files[0]), originOf(t, files[0])
		change(to.Spec)
		p, err := Compile(from.Spec, from.Facts)
		if err != nil {
			t.Fatal(err)
		}
		_, want := Compile(to.Spec, to.Facts)
		got, err := p.Rebind(from, to)
		if want == nil || got != nil && err == nil || err == nil || err.Error() != want.Error() {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}
