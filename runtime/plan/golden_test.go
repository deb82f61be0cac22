package plan

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// goldenFacts are a host on which every bind source is a directory unless its
// name says otherwise, and /proc has the usual entries.
func goldenFacts(name string, s *specs.Spec) Facts {
	f := Facts{BundleDir: "/run/capsule/executions/ID/bundle", Kinds: map[string]Kind{}, Tasks: 3,
		Rootless: strings.Contains(name, "rootless"), NoInit: s.Annotations["run.capsule.init"] == "false", Landlock: LandlockWhole}
	if f.Rootless {
		f.Tasks = 0
	}
	if s.Linux.Seccomp != nil {
		f.Filter = make([]byte, 16)
	}
	for _, m := range s.Mounts {
		f.Kinds[m.Source] = KindDir
		if strings.Contains(filepath.Base(m.Source), ".") {
			f.Kinds[m.Source] = KindFile
		}
	}
	for _, p := range append(s.Linux.MaskedPaths, s.Linux.ReadonlyPaths...) {
		f.Kinds[p] = KindFile
	}
	for _, p := range []string{"/proc/acpi", "/proc/scsi", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"} {
		f.Kinds[p] = KindDir
	}
	delete(f.Kinds, "/proc/sched_debug") // newer kernels have none
	return f
}

// TestGolden pins whole plans as Explain prints them: every step, in order. The
// configurations are those that shim/bundle writes. CAPSULE_GOLDEN=write
// accepts what changed.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) < 5 {
		t.Fatalf("configurations: %v, %v", files, err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		t.Run(name, func(t *testing.T) {
			got := explained(t, file, name)
			golden := filepath.Join("testdata", name+".plan")
			if os.Getenv("CAPSULE_GOLDEN") == "write" {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("the plan differs from %s; CAPSULE_GOLDEN=write accepts this:\n%s", golden, got)
			}
		})
	}
}

func explained(t *testing.T, file, name string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var s specs.Spec
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	p, err := Compile(&s, goldenFacts(name, &s))
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := p.Explain(&text); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// TestRefusals: what the plan cannot do is an error that names the field.
func TestRefusals(t *testing.T) {
	for field, change := range map[string]func(*specs.Spec){
		"process.terminal":         func(s *specs.Spec) { s.Process.Terminal = true },
		"process.noNewPrivileges":  func(s *specs.Spec) { s.Process.NoNewPrivileges = false },
		"process.capabilities":     func(s *specs.Spec) { s.Process.Capabilities = &specs.LinuxCapabilities{Ambient: []string{"CAP_CHOWN"}} },
		"process.args":             func(s *specs.Spec) { s.Process.Args = nil },
		"process.cwd":              func(s *specs.Spec) { s.Process.Cwd = "work" },
		"hooks":                    func(s *specs.Spec) { s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "/x"}}} },
		"linux.sysctl":             func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"a": "b"} },
		"process.oomScoreAdj":      func(s *specs.Spec) { s.Process.OOMScoreAdj = new(int) },
		"linux.devices":            func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x"}} },
		"linux.uidMappings":        func(s *specs.Spec) { s.Linux.UIDMappings = nil },
		"linux.namespaces":         func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[1:] },
		"linux.namespaces[0].path": func(s *specs.Spec) { s.Linux.Namespaces[0].Path = "/proc/1/ns/user" },
		"linux.seccomp":            func(s *specs.Spec) { s.Linux.Seccomp = &specs.LinuxSeccomp{} },
		"mounts[0].destination":    func(s *specs.Spec) { s.Mounts = []specs.Mount{{Destination: "/a/../b", Type: "tmpfs"}} },
	} {
		s := bare()
		change(s)
		_, err := Compile(s, Facts{BundleDir: "/bundle"})
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v, want a refusal that names it", field, err)
		}
	}
}
