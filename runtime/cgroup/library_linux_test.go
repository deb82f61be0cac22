package cgroup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// The managers of containerd/cgroups are the reference: what this package does
// by itself, because it is on the hot path, must be what they do.

func TestWeightIsTheLibrarys(t *testing.T) {
	for shares := uint64(1); shares <= 262145; shares++ {
		if got, want := weight(shares), cgroup2.ConvertCPUSharesToCgroupV2Value(shares); got != want {
			t.Fatalf("%d shares: weight %d, library %d", shares, got, want)
		}
	}
}

func resources() *specs.LinuxResources {
	device := specs.LinuxThrottleDevice{Rate: 4096}
	device.Major, device.Minor = 8, 16
	return &specs.LinuxResources{
		Memory:  &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Swap: ptr(int64(96 << 20)), Reservation: ptr(int64(32 << 20))},
		Pids:    &specs.LinuxPids{Limit: ptr(int64(17))},
		CPU:     &specs.LinuxCPU{Shares: ptr(uint64(300)), Quota: ptr(int64(150000)), Period: ptr(uint64(50000))},
		BlockIO: &specs.LinuxBlockIO{ThrottleWriteIOPSDevice: []specs.LinuxThrottleDevice{device}},
	}
}

// ours writes the settings for one version into files below dir.
func ours(t *testing.T, r *specs.LinuxResources, version int) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, w := range wants(r) {
		for _, s := range w.settings(version) {
			files[s.file] = s.value
		}
	}
	return files
}

// theirs lets the library write into an ordinary directory and reads it back.
func theirs(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		// The library creates files with no permissions at all.
		if err := os.Chmod(path, 0o600); err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		files[entry.Name()] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func compare(t *testing.T, ours, theirs map[string]string) {
	t.Helper()
	// The library has no opinion about it: memory.oom.group is not in OCI.
	delete(ours, "memory.oom.group")
	for file, value := range theirs {
		if ours[file] != value {
			t.Errorf("%s: %q, library %q", file, ours[file], value)
		}
	}
	for file := range ours {
		if _, ok := theirs[file]; !ok {
			t.Errorf("the library does not write %s", file)
		}
	}
}

func TestV2SettingsAreTheLibrarys(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/x", 0o755); err != nil {
		t.Fatal(err)
	}
	m, err := cgroup2.Load("/x", cgroup2.WithMountpoint(dir))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Update(cgroup2.ToResources(resources())); err != nil {
		t.Fatal(err)
	}
	compare(t, ours(t, resources(), 2), theirs(t, dir))
}

func TestV1SettingsAreTheLibrarys(t *testing.T) {
	dir := t.TempDir()
	r := resources()
	for _, s := range []interface {
		Create(string, *specs.LinuxResources) error
	}{cgroup1.NewMemory(dir), cgroup1.NewPids(dir), cgroup1.NewCpu(dir), cgroup1.NewBlkio(dir)} {
		if err := s.Create("x", r); err != nil {
			t.Fatal(err)
		}
	}
	compare(t, ours(t, r, 1), theirs(t, dir))
}

// TestLibraryAgreesOnALiveGroup reads a group with both and lets the library
// delete it.
func TestLibraryAgreesOnALiveGroup(t *testing.T) {
	h := needHost(t, Memory, Pids)
	g := newGroup(t, h, resources10())
	if err := start(t, g, "spin").Run(); err != nil {
		t.Fatal(err)
	}
	s := stats(t, g)
	memory := g.with(Memory)
	if memory.version == 2 {
		m, err := cgroup2.Load(strings.TrimPrefix(memory.path, mountpoint))
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := m.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if s.MemoryPeak != nil && uint64(*s.MemoryPeak) != theirs.Memory.MaxUsage {
			t.Errorf("peak %d, library %d", *s.MemoryPeak, theirs.Memory.MaxUsage)
		}
		// A process that was waited for may still use the processor for its last instructions.
		later := stats(t, g)
		if usec := theirs.CPU.UsageUsec; usec < uint64(s.CPU.Microseconds()) || usec > uint64(later.CPU.Microseconds()) || theirs.Pids.Limit != 10 {
			t.Errorf("cpu %v, then %v; library %v us; pids limit %d", *s.CPU, *later.CPU, usec, theirs.Pids.Limit)
		}
		if err := m.Delete(); err != nil {
			t.Error(err)
		}
		return
	}
	byName := map[cgroup1.Name]string{}
	for name, file := range map[string]cgroup1.Name{Memory: cgroup1.Memory, Pids: cgroup1.Pids} {
		byName[file] = strings.TrimPrefix(g.with(name).path, filepath.Join(mountpoint, name))
	}
	control, err := cgroup1.Load(func(name cgroup1.Name) (string, error) {
		if path, ok := byName[name]; ok {
			return path, nil
		}
		return "", cgroup1.ErrControllerNotActive
	}, cgroup1.WithHierarchy(func() ([]cgroup1.Subsystem, error) {
		return []cgroup1.Subsystem{cgroup1.NewMemory(mountpoint, cgroup1.IgnoreModules("memsw", "kmem", "kmem.tcp")), cgroup1.NewPids(mountpoint)}, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := control.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if uint64(*s.MemoryPeak) != theirs.Memory.Usage.Max || theirs.Pids.Limit != 10 {
		t.Errorf("peak %d, library %d; pids limit %d", *s.MemoryPeak, theirs.Memory.Usage.Max, theirs.Pids.Limit)
	}
	if err := control.Delete(); err != nil {
		t.Error(err)
	}
}

func resources10() *specs.LinuxResources {
	return &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(64 << 20))},
		Pids:   &specs.LinuxPids{Limit: ptr(int64(10))},
	}
}
