package bundle

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestPointer(t *testing.T) {
	for dotted, want := range map[string]string{
		"process.terminal":                 "/process/terminal",
		"mounts[3].options[1]":             "/mounts/3/options/1",
		"linux.namespaces[0].path":         "/linux/namespaces/0/path",
		"annotations.run.capsule.skeleton": "/annotations/run.capsule.skeleton",
		"annotations.a/b~c":                "/annotations/a~1b~0c",
		"linux.sysctl.net.core.somaxconn":  "/linux/sysctl/net.core.somaxconn",
	} {
		if got := Pointer(dotted); got != want {
			t.Errorf("%s: %s, want %s", dotted, got, want)
		}
	}
	list := fault.List{fault.New(fault.InvalidBundle, "", "x").WithField("a.b"), fault.New(fault.InvalidPath, "", "y").WithField("/isolation/rootfs")}
	var got fault.List
	if !errors.As(Pointed(list), &got) || got[0].Field != "/a/b" || got[1].Field != "/isolation/rootfs" || list[0].Field != "a.b" {
		t.Errorf("%v from %v", got, list)
	}
}

// plainSpec is a bundle as other tools write it: no user namespace, no filter.
func plainSpec() *specs.Spec {
	limit, shares := int64(64<<20), uint64(512)
	return &specs.Spec{Version: "1.0.2", Root: &specs.Root{Path: "rootfs"}, Hostname: "box",
		Process: &specs.Process{Args: []string{"sh"}, Env: []string{"A=b=c", "PATH=/bin"}, Cwd: "/", User: specs.User{UID: 7, GID: 8},
			Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 20, Soft: 10}}},
		Mounts: []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}, {Destination: "/data", Source: "/srv", Options: []string{"rbind", "ro"}}},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.NetworkNamespace}},
			Resources: &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}, CPU: &specs.LinuxCPU{Shares: &shares}}},
	}
}

func TestRequestOfABundle(t *testing.T) {
	base := spec.Default()
	base.TimeoutMS = 777
	r, err := Request(plainSpec(), "/b", base)
	if err != nil {
		t.Fatal(err)
	}
	i := r.Isolation
	switch {
	case r.TimeoutMS != 777, r.Environment["A"] != "b=c", r.Resources.MemoryBytes != 64<<20, r.Resources.CPUShares != 512,
		r.Resources.Rlimits["nofile"] != spec.Rlimit{Soft: 10, Hard: 20}, r.Resources.MaxPids != 1<<15,
		i.Network, i.Init, i.User != "7:8", *i.Rootfs != "/b/rootfs", i.Seccomp.Name != "default",
		len(i.BindMounts) != 1 || i.BindMounts[0] != (spec.BindMount{Source: "/srv", Destination: "/data", Readonly: true}):
		t.Errorf("%s", r.Encode())
	}
	again, err := Request(plainSpec(), "/b", r)
	if err != nil || string(again.Encode()) != string(r.Encode()) {
		t.Errorf("a second reading differs: %v\n%s\n%s", err, again.Encode(), r.Encode())
	}
	without := plainSpec()
	without.Process.Args = nil
	if _, err := Request(without, "/b", base); fault.From(err, "").Code != fault.InvalidBundle {
		t.Errorf("without a command: %v", err)
	}
	open := plainSpec()
	open.Linux.Namespaces = open.Linux.Namespaces[:1]
	if r, err := Request(open, "/b", base); err != nil || !r.Isolation.Network {
		t.Errorf("without a network namespace: %v", err)
	}
}

// TestConfine wants every wall that is added to be told, and none for a bundle that
// has them all.
func TestConfine(t *testing.T) {
	s := plainSpec()
	added, idmap := Confine(s, Place{SlotBase: 0x70000000, TimeNamespace: true, CgroupNamespace: true, Seccomp: "default"})
	if len(added) != 5 || !idmap || !s.Process.NoNewPrivileges || s.Linux.UIDMappings[0].HostID != 0x70000000 {
		t.Errorf("added %q", added)
	}
	for _, kind := range []specs.LinuxNamespaceType{specs.UserNamespace, specs.TimeNamespace, specs.CgroupNamespace} {
		if !hasNamespace(s, kind) {
			t.Errorf("no %s namespace", kind)
		}
	}
	s.Linux.Seccomp = new(specs.LinuxSeccomp)
	if added, idmap := Confine(s, Place{SlotBase: 0x70010000, TimeNamespace: true, CgroupNamespace: true, Seccomp: "default"}); len(added) != 0 || idmap {
		t.Errorf("added again: %q", added)
	}
	rootless := plainSpec()
	if _, idmap := Confine(rootless, Place{Rootless: true, UID: 1001, GID: 1002}); idmap || rootless.Linux.UIDMappings[0] != (specs.LinuxIDMapping{ContainerID: 7, HostID: 1001, Size: 1}) {
		t.Errorf("mappings %v", rootless.Linux.UIDMappings)
	}
}

func TestHasInit(t *testing.T) {
	for _, c := range []struct {
		annotations map[string]string
		want        bool
	}{
		{nil, false},
		{map[string]string{plan.AnnotationSkeleton: "{}"}, true},
		{map[string]string{plan.AnnotationSkeleton: "{}", AnnotationInit: "false"}, false},
		{map[string]string{AnnotationInit: "true"}, true},
		{map[string]string{AnnotationInit: "yes"}, false},
	} {
		if got := HasInit(&specs.Spec{Annotations: c.annotations}); got != c.want {
			t.Errorf("%v: %v", c.annotations, got)
		}
	}
}

// TestDiff wants what means the same to be the same, and each change to be found at its place.
func TestDiff(t *testing.T) {
	same := plainSpec()
	same.Process.Env = []string{"PATH=/bin", "A=b=c"}
	same.Mounts = []specs.Mount{same.Mounts[1], same.Mounts[0]}
	same.Mounts[0].Options = []string{"ro", "rbind"}
	same.Linux.Namespaces = []specs.LinuxNamespace{same.Linux.Namespaces[1], same.Linux.Namespaces[0]}
	same.Linux.RootfsPropagation = "private"
	same.Process.Capabilities = &specs.LinuxCapabilities{}
	if d, err := Diff(plainSpec(), same); err != nil || len(d) != 0 {
		t.Errorf("%v, %v", d, err)
	}
	for pointer, change := range map[string]func(*specs.Spec){
		"/process/env/A":                      func(s *specs.Spec) { s.Process.Env[0] = "A=c" },
		"/process/env/NEW":                    func(s *specs.Spec) { s.Process.Env = append(s.Process.Env, "NEW=1") },
		"/process/args":                       func(s *specs.Spec) { s.Process.Args = []string{"bash"} },
		"/process/rlimits/RLIMIT_NOFILE/soft": func(s *specs.Spec) { s.Process.Rlimits[0].Soft = 1 },
		"/process/capabilities":               func(s *specs.Spec) { s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}} },
		"/process/noNewPrivileges":            func(s *specs.Spec) { s.Process.NoNewPrivileges = true },
		"/mounts/~1data/options":              func(s *specs.Spec) { s.Mounts[1].Options = []string{"rbind"} },
		"/mounts/~1new":                       func(s *specs.Spec) { s.Mounts = append(s.Mounts, specs.Mount{Destination: "/new", Type: "tmpfs"}) },
		"/linux/namespaces/ipc": func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.IPCNamespace})
		},
		"/linux/resources/memory/limit": func(s *specs.Spec) { *s.Linux.Resources.Memory.Limit++ },
		"/linux/seccomp":                func(s *specs.Spec) { s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActErrno} },
		"/linux/maskedPaths":            func(s *specs.Spec) { s.Linux.MaskedPaths = []string{"/proc/kcore"} },
		"/hostname":                     func(s *specs.Spec) { s.Hostname = "other" },
		"/root/readonly":                func(s *specs.Spec) { s.Root.Readonly = true },
		"/annotations":                  func(s *specs.Spec) { s.Annotations = map[string]string{plan.AnnotationExecutionID: "x"} },
	} {
		b := plainSpec()
		change(b)
		d, err := Diff(plainSpec(), b)
		if err != nil || len(d) != 1 || d[0].Pointer != pointer {
			t.Errorf("%s: %+v, %v", pointer, d, err)
		}
	}
	// Order counts where one mount covers another.
	a, b := plainSpec(), plainSpec()
	a.Mounts = append(a.Mounts, specs.Mount{Destination: "/data/in", Type: "tmpfs"})
	b.Mounts = []specs.Mount{b.Mounts[0], {Destination: "/data/in", Type: "tmpfs"}, b.Mounts[1]}
	if d, err := Diff(a, b); err != nil || len(d) != 1 || d[0].Pointer != "/mounts" {
		t.Errorf("order: %+v, %v", d, err)
	}
}

// TestExport writes a bundle out and wants its root as files, and nothing in it that
// only capsule understands.
func TestExport(t *testing.T) {
	config, skeleton, err := BuildParts(request(), rootHost())
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]plan.Kind{"/usr": plan.KindDir, "/etc/ssl/certs": plan.KindDir, "/etc/alternatives": plan.KindDir,
		"/etc/ld.so.cache": plan.KindFile, "/etc/ssl/openssl.cnf": plan.KindFile}
	p, err := Export(config, nil, kinds)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Skeleton.Files) != len(skeleton.Files) {
		t.Errorf("the skeleton of the annotation has %d files, want %d", len(p.Skeleton.Files), len(skeleton.Files))
	}
	if Own(p.Config) || !HasInit(p.Config) || p.Config.Linux.CgroupsPath != "" || hasNamespace(p.Config, specs.TimeNamespace) || !hasNamespace(config, specs.TimeNamespace) {
		t.Errorf("%+v", p.Config)
	}
	for _, m := range p.Config.Mounts {
		if kinds[m.Source] == plan.KindFile && slices.Contains(m.Options, "rro") {
			t.Errorf("%s has %v", m.Destination, m.Options)
		}
	}
	dir := filepath.Join(t.TempDir(), "bundle")
	if err := p.Write(dir, kinds, -1, map[string][]byte{"README.md": []byte(p.Readme(true, "some-id"))}); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{
		"": 0o711 | os.ModeDir, "config.json": 0o600, "README.md": 0o600, "rootfs": 0o755 | os.ModeDir, "rootfs/bin": 0o777 | os.ModeSymlink,
		"rootfs/etc/passwd": 0o644, "rootfs/etc/ld.so.cache": 0o644, "rootfs/usr": 0o755 | os.ModeDir, "rootfs/workspace": 0o755 | os.ModeDir,
	} {
		if info, err := os.Lstat(filepath.Join(dir, name)); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	loaded, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := Diff(loaded, p.Config); err != nil || len(d) != 0 {
		t.Errorf("%v, %v", d, err)
	}
	if err := p.Write(dir, kinds, -1, nil); fault.From(err, "").Code != fault.InvalidPath {
		t.Errorf("over another bundle: %v", err)
	}
}
