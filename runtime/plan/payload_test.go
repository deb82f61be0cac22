package plan

import (
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
		if slices.ContainsFunc(p.Payload, func(s Step) bool { return s.Op == OpChdir }) {
			t.Errorf("noInit %v: a path is entered by name", noInit)
		}
		closed := slices.IndexFunc(p.Payload, func(s Step) bool { return s.Op == OpCloseRange && s.Mode == Must && s.Args[2].N == 0 })
		if closed < 0 || closed > open {
			t.Errorf("noInit %v: descriptors are closed at step %d, the directory opened at %d", noInit, closed, open)
		}
	}
}
