package bundle

import (
	"errors"
	"math"
	"slices"
	"strconv"
	"testing"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestBuildRefuses(t *testing.T) {
	type change = func(*spec.Request, *Host)
	bindAt := func(dest string) change {
		return func(r *spec.Request, h *Host) {
			r.Isolation.BindMounts = []spec.BindMount{{Source: "/srv/x", Destination: dest}}
			h.Binds = []Bind{{Field: "/isolation/bind_mounts/0", Source: "/srv/x", Destination: dest}}
		}
	}
	user := func(u string) change { return func(r *spec.Request, _ *Host) { r.Isolation.User = u } }
	cwd := func(d string) change { return func(r *spec.Request, _ *Host) { r.Isolation.WorkingDirectory = d } }
	quota := func(q float64) change { return func(r *spec.Request, _ *Host) { r.Resources.CPUQuota = &q } }
	cases := []struct {
		name  string
		code  fault.Code
		field string
		do    change
	}{
		{"user empty", fault.InvalidValue, "/isolation/user", user("")},
		{"user colon", fault.InvalidValue, "/isolation/user", user(":")},
		{"user no gid", fault.InvalidValue, "/isolation/user", user("1000:")},
		{"user no uid", fault.InvalidValue, "/isolation/user", user(":1000")},
		{"user name", fault.InvalidValue, "/isolation/user", user("root")},
		{"user space", fault.InvalidValue, "/isolation/user", user(" 1000")},
		{"user newline", fault.InvalidValue, "/isolation/user", user("1000\n")},
		{"user sign", fault.InvalidValue, "/isolation/user", user("+1000")},
		{"user negative", fault.InvalidValue, "/isolation/user", user("-1")},
		{"user octal", fault.InvalidValue, "/isolation/user", user("01000")},
		{"user hex", fault.InvalidValue, "/isolation/user", user("0x0")},
		{"user underscore", fault.InvalidValue, "/isolation/user", user("1_000")},
		{"user overflow", fault.InvalidValue, "/isolation/user", user("4294967296")},
		{"user -1", fault.InvalidValue, "/isolation/user", user("4294967295")},
		{"user three", fault.InvalidValue, "/isolation/user", user("1:2:3")},
		{"user outside the slot", fault.OutOfRange, "/isolation/user", user("65535")},
		{"group outside the slot", fault.OutOfRange, "/isolation/user", user("0:70000")},
		{"cwd proc fd", fault.InvalidPath, "/isolation/working_directory", cwd("/proc/self/fd/3")},
		{"cwd proc", fault.InvalidPath, "/isolation/working_directory", cwd("/proc")},
		{"cwd dev fd", fault.InvalidPath, "/isolation/working_directory", cwd("/dev/fd/7")},
		{"cwd relative", fault.InvalidPath, "/isolation/working_directory", cwd("workspace")},
		{"cwd not clean", fault.InvalidPath, "/isolation/working_directory", cwd("/workspace/../proc")},
		{"cwd double slash", fault.InvalidPath, "/isolation/working_directory", cwd("//proc")},
		{"cwd NUL", fault.InvalidPath, "/isolation/working_directory", cwd("/a\x00b")},
		{"memory above the host", fault.OutOfRange, "/resources/memory_bytes", func(r *spec.Request, _ *Host) { r.Resources.MemoryBytes = 9 << 30 }},
		{"quota above the host", fault.OutOfRange, "/resources/cpu_quota", quota(4.5)},
		{"quota below", fault.OutOfRange, "/resources/cpu_quota", quota(0.001)},
		{"quota NaN", fault.OutOfRange, "/resources/cpu_quota", quota(math.NaN())},
		{"rlimit soft above hard", fault.OutOfRange, "/resources/rlimits/nofile", func(r *spec.Request, _ *Host) { r.Resources.Rlimits["nofile"] = spec.Rlimit{Soft: 2, Hard: 1} }},
		{"no slot", fault.IDMapping, "", func(_ *spec.Request, h *Host) { h.SlotBase = 0 }},
		{"unresolved bind", fault.InvalidPath, "/isolation", func(r *spec.Request, _ *Host) { r.Isolation.ReadonlyPaths = []string{"/srv"} }},
		{"over root", fault.InvalidPath, "/isolation/bind_mounts/0", bindAt("/")},
		{"over proc", fault.InvalidPath, "/isolation/bind_mounts/0", bindAt("/proc/sys")},
		{"over dev", fault.InvalidPath, "/isolation/bind_mounts/0", bindAt("/dev")},
		{"in dev", fault.InvalidPath, "/isolation/bind_mounts/0", bindAt("/dev/shm")},
		{"over sys", fault.InvalidPath, "/isolation/bind_mounts/0", bindAt("/sys")},
		{"not clean", fault.InvalidPath, "/isolation/bind_mounts/0", bindAt("//etc/x")},
		{"dot dot", fault.InvalidPath, "/isolation/bind_mounts/0", bindAt("/workspace/../proc")},
		{"relative", fault.InvalidPath, "/isolation/bind_mounts/0", bindAt("etc")},
		{"proc through a link", fault.InvalidPath, "/isolation/bind_mounts/0", func(r *spec.Request, h *Host) {
			h.System = append(h.System, Entry{Path: "/lib32", Kind: Symlink, Target: "../../proc"})
			bindAt("/lib32/sys")(r, h)
		}},
		{"link loop", fault.InvalidPath, "/isolation/bind_mounts/0", func(r *spec.Request, h *Host) {
			h.System = append(h.System, Entry{Path: "/lib32", Kind: Symlink, Target: "lib32/x"})
			bindAt("/lib32/y")(r, h)
		}},
		{"same destination twice", fault.InvalidPath, "/isolation/bind_mounts/1", func(r *spec.Request, h *Host) {
			r.Isolation.BindMounts = make([]spec.BindMount, 2)
			h.Binds = []Bind{
				{Field: "/isolation/bind_mounts/0", Source: "/srv/x", Destination: "/usr/lib/x"},
				{Field: "/isolation/bind_mounts/1", Source: "/srv/y", Destination: "/lib/x"},
			}
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r, h := request(), rootHost()
			c.do(r, &h)
			s, err := Build(r, h)
			var list fault.List
			if s != nil || !errors.As(err, &list) || len(list) != 1 {
				t.Fatalf("got %v, %v; want one fault", s, err)
			}
			if list[0].Code != c.code || list[0].Field != c.field {
				t.Errorf("got %s at %q, want %s at %q", list[0].Code, list[0].Field, c.code, c.field)
			}
		})
	}
}

func TestBuildReportsEverythingAtOnce(t *testing.T) {
	r := request(func(r *spec.Request) {
		r.Isolation.User, r.Isolation.WorkingDirectory, r.Resources.MemoryBytes = "x", "/proc/1/cwd", 1<<50
	})
	_, err := Build(r, rootHost())
	var list fault.List
	if !errors.As(err, &list) || len(list) != 3 {
		t.Fatalf("got %v, want three faults", err)
	}
}

// TestBuildBoundsEveryDisk: each bound that is given, on each disk, and nothing
// where there is none.
func TestBuildBoundsEveryDisk(t *testing.T) {
	rate := int64(1000)
	build := func(io *spec.IOLimits, disks ...Device) *specs.LinuxBlockIO {
		h := rootHost()
		h.Disks = disks
		s, err := Build(request(func(r *spec.Request) { r.Resources.IO = io }), h)
		if err != nil {
			t.Fatal(err)
		}
		return s.Linux.Resources.BlockIO
	}
	if b := build(nil, Device{8, 0}); b != nil {
		t.Errorf("without bounds: %+v", b)
	}
	if b := build(&spec.IOLimits{}, Device{8, 0}); b != nil {
		t.Errorf("with empty bounds: %+v", b)
	}
	if b := build(&spec.IOLimits{ReadOpsPerSecond: &rate}); b != nil {
		t.Errorf("without disks: %+v", b)
	}
	endless := int64(math.MaxInt64)
	if b := build(&spec.IOLimits{ReadOpsPerSecond: &endless}, Device{8, 0}); b.ThrottleReadIOPSDevice[0].Rate != maxOps {
		t.Errorf("the kernel does not keep %d", b.ThrottleReadIOPSDevice[0].Rate)
	}
	b := build(&spec.IOLimits{ReadBytesPerSecond: &rate, WriteOpsPerSecond: &rate}, Device{8, 0}, Device{254, 16})
	if b.ThrottleWriteBpsDevice != nil || b.ThrottleReadIOPSDevice != nil {
		t.Errorf("bounds that nobody asked for: %+v", b)
	}
	for _, list := range [][]specs.LinuxThrottleDevice{b.ThrottleReadBpsDevice, b.ThrottleWriteIOPSDevice} {
		if len(list) != 2 || list[0].Major != 8 || list[1].Major != 254 || list[1].Minor != 16 || list[0].Rate != 1000 || list[1].Rate != 1000 {
			t.Errorf("%+v", list)
		}
	}
}

// TestUserGID: the group is the user's own unless it is given, never root's.
func TestUserGID(t *testing.T) {
	for user, want := range map[string][2]uint32{"1000": {1000, 1000}, "0": {0, 0}, "7:0": {7, 0}, "0:12": {0, 12}, "65534:65534": {65534, 65534}} {
		s, err := Build(request(func(r *spec.Request) { r.Isolation.User = user }), rootHost())
		if err != nil {
			t.Fatal(user, err)
		}
		if got := [2]uint32{s.Process.User.UID, s.Process.User.GID}; got != want {
			t.Errorf("%s: got %v, want %v", user, got, want)
		}
	}
	if _, err := Build(request(func(r *spec.Request) { r.Isolation.User = "100000:4294967294" }), rootlessHost()); err != nil {
		t.Errorf("rootless maps any one id: %v", err)
	}
}

// TestWorkingDirectoryMountsNothing: see Codex CVE-2025-59532.
func TestWorkingDirectoryMountsNothing(t *testing.T) {
	a, _ := Build(request(), rootHost())
	b, err := Build(request(func(r *spec.Request) { r.Isolation.WorkingDirectory = "/home/u/project" }), rootHost())
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Mounts) != len(b.Mounts) || findMount(b, "/home/u/project") != nil {
		t.Error("the working directory changed the mounts")
	}
}

// TestParentsFirst: a mount never hides one that was made before it.
func TestParentsFirst(t *testing.T) {
	for _, c := range goldenCases {
		s, err := Build(c.req, c.host)
		if err != nil {
			t.Fatal(c.name, err)
		}
		for i, m := range s.Mounts {
			for _, later := range s.Mounts[i+1:] {
				if within(m.Destination, later.Destination) {
					t.Errorf("%s: %s is mounted before %s", c.name, m.Destination, later.Destination)
				}
			}
		}
	}
}

// TestBindReplacesWhatItCovers: nothing of ours is put into a directory of the caller.
func TestBindReplacesWhatItCovers(t *testing.T) {
	r := request(func(r *spec.Request) { r.Isolation.ReadonlyPaths = []string{"/etc", "/var", "/tmp"} })
	h := rootHost(func(h *Host) {
		h.Binds = []Bind{
			{Source: "/srv/etc", Destination: "/etc", Readonly: true}, {Source: "/srv/var", Destination: "/var", Readonly: true},
			{Source: "/srv/tmp", Destination: "/tmp", Readonly: true},
		}
	})
	s, sk, err := BuildParts(r, h)
	if err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{"/etc/ssl/certs", "/var/tmp"} {
		if findMount(s, gone) != nil {
			t.Errorf("%s is still mounted", gone)
		}
	}
	if m := findMount(s, "/tmp"); m.Type != "bind" || !slices.Contains(m.Options, "rro") {
		t.Errorf("/tmp: %+v", m)
	}
	if len(sk.Files) != 0 || len(sk.Symlinks) != 4 {
		t.Errorf("skeleton: %+v", sk)
	}
}

// TestTmpfsFitMemory: with every tmpfs full of data and of empty files, a
// quarter of the memory is left to the payload. The smallest limits are
// bounded by whole pages and by the inodes that a tmpfs needs to be of use.
func TestTmpfsFitMemory(t *testing.T) {
	for _, memory := range []int64{4 << 20, 10<<20 + 4097, 64 << 20, 256 << 20, 4 << 30} {
		for _, disk := range []int64{1, 1 << 20, 64 << 20, 1 << 40} {
			s, err := Build(request(func(r *spec.Request) { r.Resources.MemoryBytes, r.Resources.DiskBytes = memory, disk }), rootHost())
			if err != nil {
				t.Fatal(err)
			}
			var sum int64
			for i := range s.Mounts {
				m := &s.Mounts[i]
				if m.Type != "tmpfs" || m.Destination == "/dev" {
					continue
				}
				size, _ := strconv.ParseInt(option(m, "size"), 10, 64)
				inodes, _ := strconv.ParseInt(option(m, "nr_inodes"), 10, 64)
				if size < 4096 || size%4096 != 0 || inodes < 16 {
					t.Errorf("%s: size %d, inodes %d", m.Destination, size, inodes)
				}
				if size > max(disk, 4096) {
					t.Errorf("%s: %d is more than disk_bytes %d", m.Destination, size, disk)
				}
				sum += size + inodes*inodeCost
			}
			if sum > memory/4*3 {
				t.Errorf("memory %d, disk %d: tmpfs may take %d", memory, disk, sum)
			}
		}
	}
	if got := DiskBytes(&request().Resources); got != 64<<20 {
		t.Errorf("the defaults do not hold together: %d", got)
	}
}

func BenchmarkBuild(b *testing.B) {
	r, h := request(), rootHost()
	b.ReportAllocs()
	for b.Loop() {
		s, err := Build(r, h)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := Encode(s); err != nil {
			b.Fatal(err)
		}
	}
}
