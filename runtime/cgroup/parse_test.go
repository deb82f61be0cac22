package cgroup

import (
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestNumbers(t *testing.T) {
	for content, want := range map[string]int64{"12\n": 12, "0": 0, "max\n": -1, "": -1, "-1\n": -1, "x": -1} {
		got := number(content)
		if (got == nil) != (want < 0) || (got != nil && *got != want) {
			t.Errorf("%q: %v", content, got)
		}
	}
	const events = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n"
	for key, want := range map[string]int64{"max": 12, "oom_kill": 2, "oom_group_kill": 1} {
		if got := keyed(events, key); got == nil || *got != want {
			t.Errorf("%s: %v", key, got)
		}
	}
	if got := keyed(events, "oom_"); got != nil {
		t.Errorf("a prefix of a key: %v", *got)
	}
}

func TestOOMKills(t *testing.T) {
	for content, want := range map[string]int64{
		"oom_kill 0\noom_group_kill 0\n": 0,
		"oom_kill 2\noom_group_kill 1\n": 1,
		"oom_kill 1\noom_group_kill 1\n": 1,
		"oom_kill 4\noom_group_kill 1\n": 3,
		"oom_kill 3\n":                   3,
		"oom 1\n":                        -1,
	} {
		var s Stats
		s.oomKills(content)
		if (s.OOMKills == nil) != (want < 0) || (s.OOMKills != nil && *s.OOMKills != want) {
			t.Errorf("%q: %v", content, s.OOMKills)
		}
	}
}

func TestCPUTime(t *testing.T) {
	var s Stats
	s.cpuStat("usage_usec 1500\nuser_usec 1000\nsystem_usec 499\n")
	if *s.CPU != 1500*time.Microsecond || *s.User != time.Millisecond || *s.Kernel != 500*time.Microsecond {
		t.Errorf("cpu.stat: %v %v %v", *s.CPU, *s.User, *s.Kernel)
	}
	for _, c := range []struct{ usage, user, system, wantUser, wantKernel int64 }{
		{1000, 0, 0, 1000, 0}, // too short for a tick
		{1000, 4000, 0, 1000, 0},
		{1000, 0, 4000, 0, 1000},
		{9000, 4000, 8000, 3000, 6000},
		{1 << 62, 1 << 62, 1 << 62, 1 << 61, 1 << 61},
	} {
		var s Stats
		s.cpuacct(&c.usage, &c.user, &c.system)
		if int64(*s.User) != c.wantUser || int64(*s.Kernel) != c.wantKernel {
			t.Errorf("%+v: %d %d", c, *s.User, *s.Kernel)
		}
	}
	s = Stats{}
	s.cpuacct(nil, nil, nil)
	if s.CPU != nil {
		t.Error("measured from nothing")
	}
}

func TestBytesMoved(t *testing.T) {
	var s Stats
	s.ioStat("8:0 rbytes=4096 wbytes=1 rios=1 wios=1 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=8192 rios=2 wios=2\n")
	if *s.IORead != 4097 || *s.IOWritten != 8193 {
		t.Errorf("io.stat: %d %d", *s.IORead, *s.IOWritten)
	}
	s.blkio("8:0 Read 10\n8:0 Write 20\n8:0 Sync 30\n8:0 Total 30\n254:0 Read 1\nTotal 31\n")
	if *s.IORead != 11 || *s.IOWritten != 20 {
		t.Errorf("blkio: %d %d", *s.IORead, *s.IOWritten)
	}
}

func TestStall(t *testing.T) {
	const memory = "some avg10=0.00 avg60=0.00 avg300=0.00 total=250\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=100\n"
	if some, full := stall(memory, "some"), stall(memory, "full"); *some != 250*time.Microsecond || *full != 100*time.Microsecond {
		t.Errorf("%v %v", some, full)
	}
	if stall("", "some") != nil {
		t.Error("measured from nothing")
	}
}

func TestConfirmation(t *testing.T) {
	for _, c := range []struct {
		confirms       func(string, string) bool
		content, value string
		want           bool
	}{
		{same, "20\n", "20", true},
		{same, "max\n", "20", false},
		{atMost, "67108864\n", "67108987", true},
		{atMost, "67108864\n", "67108863", false},
		{atMost, "max\n", "67108863", false},
		{atMost, "9223372036854771712\n", "67108863", false},
		{atMost, "0\n", "67108863", false},
		{atMost, "max\n", "max", true},
		{hasDevice, "8:0 rbps=1048576 wbps=max riops=max wiops=max\n", "8:0 rbps=1048576", true},
		{hasDevice, "8:16 rbps=1048576 wbps=max\n", "8:0 rbps=1048576", false},
		{hasDevice, "8:0 rbps=max wbps=1048576\n", "8:0 rbps=1048576", false},
		{hasDevice, "254:0 rbps=9\n8:0 rbps=1048576 wbps=max riops=7 wiops=max\n", "8:0 rbps=1048576 riops=7", true},
		{hasDevice, "8:0 rbps=1048576 wbps=max riops=max wiops=max\n", "8:0 rbps=1048576 riops=7", false},
		{hasDevice, "8:0 1048576\n", "8:0 1048576", true},
		{hasDevice, "8:0 1048576\n", "8:0", false},
		{hasDevice, "", "8:0 1048576", false},
	} {
		if got := c.confirms(c.content, c.value); got != c.want {
			t.Errorf("%q for %q: %v", c.content, c.value, got)
		}
	}
}

func TestKernelRelease(t *testing.T) {
	for release, want := range map[string]bool{
		"5.14": true, "5.14.0-362.el9": true, "6.1.0-56-cloud-amd64": true, "5.13.19": false,
		"4.19.0": false, "5.4": false, "7.3-rc1": true, "": false, "6": false, "x.y": false,
	} {
		if got := atLeast(release, 5, 14); got != want {
			t.Errorf("%q: %v", release, got)
		}
	}
}

func TestWants(t *testing.T) {
	n := func(v int64) *int64 { return &v }
	for name, c := range map[string]struct {
		r      specs.LinuxResources
		v1, v2 map[string]string
	}{
		"memory without swap": {specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: n(4096)}},
			map[string]string{"memory.limit_in_bytes": "4096", "memory.memsw.limit_in_bytes": "4096"},
			map[string]string{"memory.max": "4096", "memory.swap.max": "0", "memory.oom.group": "1"}},
		"memory with swap": {specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: n(4096), Swap: n(12288)}},
			map[string]string{"memory.limit_in_bytes": "4096", "memory.memsw.limit_in_bytes": "12288"},
			map[string]string{"memory.max": "4096", "memory.swap.max": "8192", "memory.oom.group": "1"}},
		"memory with unlimited swap": {specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: n(4096), Swap: n(-1)}},
			map[string]string{"memory.limit_in_bytes": "4096", "memory.memsw.limit_in_bytes": "-1"},
			map[string]string{"memory.max": "4096", "memory.swap.max": "max", "memory.oom.group": "1"}},
		"unlimited": {specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: n(-1)}, Pids: &specs.LinuxPids{Limit: n(-1)}},
			map[string]string{}, map[string]string{}},
		"cpu": {specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: n(50000)}},
			map[string]string{"cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000"},
			map[string]string{"cpu.max": "50000 100000"}},
		"unified": {specs.LinuxResources{Unified: map[string]string{"pids.max": "3", "cgroup.procs": "1", "../pids.max": "3"}},
			map[string]string{}, map[string]string{"pids.max": "3"}},
	} {
		for version, want := range map[int]map[string]string{1: c.v1, 2: c.v2} {
			got := map[string]string{}
			for _, w := range wants(&c.r) {
				if w.settings == nil {
					continue
				}
				for _, s := range w.settings(version) {
					got[s.file] = s.value
				}
			}
			if len(got) != len(want) {
				t.Errorf("%s, v%d: %v, want %v", name, version, got, want)
			}
			for file, value := range want {
				if got[file] != value {
					t.Errorf("%s, v%d: %s is %q, want %q", name, version, file, got[file], value)
				}
			}
		}
	}
}
