package plan

import (
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestCapabilities wants a command with capabilities to keep them and no others.
func TestCapabilities(t *testing.T) {
	s := bare()
	s.Process.Capabilities = &specs.LinuxCapabilities{
		Bounding: []string{"CAP_KILL", "CAP_CHOWN"}, Effective: []string{"CAP_KILL"}, Permitted: []string{"CAP_KILL", "CAP_CHOWN"},
		Inheritable: []string{"CAP_KILL"}, Ambient: []string{"CAP_KILL", "CAP_CHOWN"},
	}
	if _, err := Compile(s, Facts{BundleDir: "/bundle"}); err == nil || !strings.Contains(err.Error(), "process.capabilities") {
		t.Errorf("with an init: %v, want a refusal", err)
	}
	p, err := Compile(s, Facts{BundleDir: "/bundle", NoInit: true})
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(p.Walls, "capabilities") {
		t.Error("the plan claims empty capability sets")
	}
	var text []string
	for _, step := range append(slices.Clone(p.Setup), p.Payload...) {
		text = append(text, step.String())
	}
	all := strings.Join(text, "\n")
	for want, there := range map[string]bool{
		"prctl(PR_CAPBSET_DROP, 0,":                              false, // CHOWN
		"prctl(PR_CAPBSET_DROP, 5,":                              false, // KILL
		"prctl(PR_CAPBSET_DROP, 1,":                              true,
		"PR_SET_SECUREBITS":                                      false,
		"PR_SET_KEEPCAPS":                                        true,
		"effective 0x20, permitted 0x21, inheritable 0x20":       true,
		"prctl(PR_CAP_AMBIENT, RAISE, CAP_KILL":                  true,
		"prctl(PR_CAP_AMBIENT, RAISE, CAP_CHOWN":                 false, // not inheritable
		"prctl(PR_SET_NO_NEW_PRIVS, 1":                           true,
		"capset(v3, effective, permitted and inheritable empty)": false,
	} {
		if strings.Contains(all, want) != there {
			t.Errorf("%q: %v, want %v\n%s", want, !there, there, all)
		}
	}
	keep, ids := strings.Index(all, "PR_SET_KEEPCAPS"), strings.LastIndex(all, "setresuid")
	if keep > ids {
		t.Error("the capabilities are gone before they are kept")
	}
}

// TestRefusedResources: limits that nothing would set are errors that name the field.
func TestRefusedResources(t *testing.T) {
	n, u := int64(5), uint64(5)
	for field, change := range map[string]func(*specs.Spec){
		"linux.resources.memory.swappiness": func(s *specs.Spec) { s.Linux.Resources.Memory = &specs.LinuxMemory{Swappiness: &u} },
		"linux.resources.memory.swap":       func(s *specs.Spec) { s.Linux.Resources.Memory = &specs.LinuxMemory{Swap: &n} },
		"linux.resources.cpu.burst":         func(s *specs.Spec) { s.Linux.Resources.CPU = &specs.LinuxCPU{Burst: &u} },
		"linux.resources.cpu.idle":          func(s *specs.Spec) { s.Linux.Resources.CPU = &specs.LinuxCPU{Idle: &n} },
		"linux.resources.devices[1]": func(s *specs.Spec) {
			s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Access: "rwm"}, {Allow: true, Type: "a"}}
		},
		"linux.resources.devices[0]": func(s *specs.Spec) {
			s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Type: "c", Major: &n, Minor: &n}}
		},
		"windows":        func(s *specs.Spec) { s.Windows = &specs.Windows{} },
		"mounts[0].type": func(s *specs.Spec) { s.Mounts = []specs.Mount{{Destination: "/a", Type: "overlay"}} },
		"mounts[0].options[1]": func(s *specs.Spec) {
			s.Mounts = []specs.Mount{{Destination: "/a", Type: "tmpfs", Options: []string{"ro", "sync"}}}
		},
		"process.capabilities.effective[0]": func(s *specs.Spec) { s.Process.Capabilities = &specs.LinuxCapabilities{Effective: []string{"KILL"}} },
	} {
		s := bare()
		s.Linux.Resources = new(specs.LinuxResources)
		change(s)
		if _, err := Compile(s, Facts{BundleDir: "/bundle"}); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v, want a refusal that names it", field, err)
		}
	}
	// What runc spec writes, and what podman adds for the default devices.
	s := bare()
	s.Linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}, {Allow: true, Type: "c", Major: &n, Minor: &n, Access: "rwm"}}}
	if _, err := Compile(s, Facts{BundleDir: "/bundle"}); err != nil {
		t.Error(err)
	}
}

// TestCgroupMounts pins what a mount of type cgroup becomes.
func TestCgroupMounts(t *testing.T) {
	for _, c := range []struct {
		hierarchies []Hierarchy
		want        []string
		not         string
	}{
		{nil, []string{`"cgroup2"`}, "nr_inodes=64"},
		{[]Hierarchy{{Name: "cpu", Options: "cpu,cpuacct"}, {Name: "systemd", Options: "none,name=systemd"}},
			[]string{`"cpu,cpuacct"`, `"none,name=systemd"`, `mkdirat(root, "sys/fs/cgroup/cpu"`}, "cgroup2"},
	} {
		s := bare()
		s.Mounts = []specs.Mount{{Destination: "/sys", Type: "sysfs", Source: "sysfs"},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "ro"}}}
		p, err := Compile(s, Facts{BundleDir: "/bundle", Hierarchies: c.hierarchies})
		if err != nil {
			t.Fatal(err)
		}
		var all strings.Builder
		for _, step := range p.Setup {
			all.WriteString(step.String() + "\n")
		}
		for _, want := range c.want {
			if !strings.Contains(all.String(), want) {
				t.Errorf("no %s in\n%s", want, all.String())
			}
		}
		if strings.Contains(all.String(), c.not) {
			t.Errorf("%s in\n%s", c.not, all.String())
		}
		if len(p.Disks) != 0 {
			t.Errorf("disks %v", p.Disks)
		}
	}
}
