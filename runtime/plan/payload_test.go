package plan

import (
	"reflect"
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// bare is the smallest configuration that Compile accepts.
func bare() *specs.Spec {
	s := &specs.Spec{
		Root:        &specs.Root{Path: "rootfs", Readonly: true},
		Annotations: map[string]string{AnnotationSkeleton: "{}"},
		Process:     &specs.Process{Args: []string{"/bin/true"}, Cwd: "/work", NoNewPrivileges: true},
		Linux: &specs.Linux{
			UIDMappings: []specs.LinuxIDMapping{{HostID: 0x70000000, Size: 65536}},
			GIDMappings: []specs.LinuxIDMapping{{HostID: 0x70000000, Size: 65536}},
		},
	}
	for _, t := range []specs.LinuxNamespaceType{"user", "mount", "pid", "ipc", "uts"} {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: t})
	}
	return s
}

// TestWorkingDirectory: the directory of the request is opened without magic
// links, and only after the launcher's descriptors are closed. No step resolves it otherwise.
func TestWorkingDirectory(t *testing.T) {
	for _, noInit := range []bool{false, true} {
		p, err := Compile(bare(), Facts{BundleDir: "/bundle", NoInit: noInit})
		if err != nil {
			t.Fatal(err)
		}
		open := slices.IndexFunc(p.Payload, func(s Step) bool { return s.Path == "/work" })
		if open < 0 || p.Payload[open].Op != OpOpenat2 || p.Payload[open].Args[2].S != string(openHow(resolveNoMagiclinks)) {
			t.Fatalf("noInit %v: the directory is not opened without magic links: %v", noInit, p.Payload)
		}
		if next := p.Payload[open+1]; next.Op != OpFchdir || next.Args[0].N != int64(p.Payload[open].Result) {
			t.Errorf("noInit %v: %v follows", noInit, next)
		}
		if slices.ContainsFunc(slices.Concat(p.Payload, p.Command), func(s Step) bool { return s.Op == OpChdir }) {
			t.Errorf("noInit %v: a path is entered by name", noInit)
		}
		// The last of the set-up closes all that the launcher has open, around
		// the status socket and what process 1 keeps.
		bounds := [][2]Arg{{imm(3), reg(RegBelow)}, {reg(RegBetweenFirst), reg(RegBetweenLast)}, {reg(RegAbove), flag(0xffffffff, "~0")}}
		for i, s := range p.Setup[len(p.Setup)-len(bounds):] {
			if s.Op != OpCloseRange || !reflect.DeepEqual([2]Arg(s.Args[:2]), bounds[i]) || s.Args[2].N != 0 {
				t.Errorf("noInit %v: the set-up ends with %v", noInit, s)
			}
		}
	}
}

// TestFilter: how the filter is loaded, by what the launcher knows.
func TestFilter(t *testing.T) {
	type load struct {
		mode     Mode
		flags    int64
		size     int
		listener bool
	}
	for name, tc := range map[string]struct {
		facts Facts
		want  []load
	}{
		"no filter":               {Facts{}, nil},
		"plain":                   {Facts{Filter: make([]byte, 16)}, []load{{Must, 0, 16, false}}},
		"listener":                {Facts{Filter: make([]byte, 16), Listener: 8}, []load{{Must, 8, 16, true}}},
		"before the command":      {Facts{Filter: make([]byte, 16), Listener: 8, FilterFirst: true}, []load{{Must, 8, 16, true}}},
		"listener, or a fallback": {Facts{Filter: make([]byte, 16), Listener: 8, Fallback: make([]byte, 24)}, []load{{Prefer, 8, 16, true}, {Must, 0, 24, false}}},
	} {
		s := bare()
		if tc.facts.Filter != nil {
			s.Linux.Seccomp = &specs.LinuxSeccomp{}
		}
		tc.facts.BundleDir = "/bundle"
		p, err := Compile(s, tc.facts)
		if err != nil {
			t.Fatal(err)
		}
		var got []load
		for i, s := range slices.Concat(p.Payload, p.Command) {
			if s.Op == OpSeccomp {
				got = append(got, load{s.Mode, s.Args[1].N, len(s.Args[2].S), s.Result == RegListener})
			} else if len(got) > 0 && s.Op != OpExecve && !tc.facts.FilterFirst {
				t.Errorf("%s: step %d comes after the filter: %v", name, i, s)
			}
		}
		if first := slices.ContainsFunc(p.Payload, func(s Step) bool { return s.Op == OpSeccomp }); first != tc.facts.FilterFirst {
			t.Errorf("%s: the filter is loaded before it is known what runs: %v", name, first)
		}
		if !slices.Equal(got, tc.want) || slices.Contains(p.Walls, "seccomp") != (len(got) > 0) {
			t.Errorf("%s: loads %v, want %v; walls %v", name, got, tc.want, p.Walls)
		}
	}
	s := bare()
	s.Linux.Seccomp = &specs.LinuxSeccomp{}
	if _, err := Compile(s, Facts{BundleDir: "/bundle", Filter: make([]byte, 16), Listener: 8, NoInit: true}); err == nil {
		t.Error("a listener that nobody can hand over is accepted")
	}
}
