package resources

import (
	"encoding/binary"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// judge runs a device filter as the kernel does.
func judge(t *testing.T, code []byte, kind, access, major, minor uint32) bool {
	t.Helper()
	context := [3]uint32{kind | access<<16, major, minor}
	var r [11]uint64
	for pc, steps := 0, 0; steps < 10000; steps++ {
		if pc < 0 || (pc+1)*8 > len(code) {
			t.Fatalf("the program leaves itself at %d", pc)
		}
		in := code[pc*8:]
		dst, src := in[1]&15, in[1]>>4
		offset, value := int16(binary.LittleEndian.Uint16(in[2:])), int32(binary.LittleEndian.Uint32(in[4:]))
		pc++
		jump := false
		switch in[0] {
		case loadWord:
			r[dst] = uint64(context[offset/4])
		case and32:
			r[dst] = uint64(uint32(r[dst]) & uint32(value))
		case shift32:
			r[dst] = uint64(uint32(r[dst]) >> value)
		case copy32:
			r[dst] = uint64(uint32(r[src]))
		case set:
			r[dst] = uint64(int64(value))
		case jumpNot:
			jump = r[dst] != uint64(int64(value))
		case jumpNot32:
			jump = uint32(r[dst]) != uint32(value)
		case jumpEqual:
			jump = r[dst] == uint64(int64(value))
		case leave:
			return r[0] != 0
		default:
			t.Fatalf("unknown instruction %#x", in[0])
		}
		if jump {
			pc += int(offset)
		}
	}
	t.Fatal("the program does not end")
	return false
}

func TestDeviceFilter(t *testing.T) {
	n := func(i int64) *int64 { return &i }
	const read, put, create = accessRead, accessPut, accessMake
	for _, c := range []struct {
		name                       string
		asked                      []specs.LinuxDeviceCgroup
		kind, access, major, minor uint32
		want                       bool
	}{
		{"null", nil, typeChar, read | put, 1, 3, true},
		{"null is no block device", nil, typeBlock, read, 1, 3, false},
		{"pts", nil, typeChar, read | put, 136, 7, true},
		{"kmsg", nil, typeChar, read, 1, 11, false},
		{"any can be made", nil, typeBlock, create, 8, 0, true},
		{"made and opened", nil, typeBlock, create | read, 8, 0, false},
		{"allowed to read", []specs.LinuxDeviceCgroup{{Allow: true, Type: "b", Major: n(8), Minor: n(0), Access: "r"}}, typeBlock, read, 8, 0, true},
		{"allowed to read, written", []specs.LinuxDeviceCgroup{{Allow: true, Type: "b", Major: n(8), Minor: n(0), Access: "r"}}, typeBlock, read | put, 8, 0, false},
		{"another minor", []specs.LinuxDeviceCgroup{{Allow: true, Type: "b", Major: n(8), Minor: n(0), Access: "r"}}, typeBlock, read, 8, 1, false},
		{"all minors", []specs.LinuxDeviceCgroup{{Allow: true, Type: "b", Major: n(8), Minor: n(-1), Access: "rwm"}}, typeBlock, put, 8, 9, true},
		{"everything", []specs.LinuxDeviceCgroup{{Allow: true}}, typeBlock, read | put, 8, 9, true},
		{"everything but one", []specs.LinuxDeviceCgroup{{Allow: true}, {Type: "b", Major: n(8), Minor: n(9), Access: "w"}}, typeBlock, read | put, 8, 9, false},
		{"everything but writing one, read", []specs.LinuxDeviceCgroup{{Allow: true}, {Type: "b", Major: n(8), Minor: n(9), Access: "w"}}, typeBlock, read, 8, 9, true},
		{"the last rule decides", []specs.LinuxDeviceCgroup{{Type: "b", Major: n(8)}, {Allow: true, Type: "b", Major: n(8)}}, typeBlock, read, 8, 9, true},
	} {
		if got := judge(t, filter(rules(c.asked)), c.kind, c.access, c.major, c.minor); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestDeviceLines(t *testing.T) {
	n := func(i int64) *int64 { return &i }
	for _, c := range []struct {
		rule specs.LinuxDeviceCgroup
		want string
	}{
		{specs.LinuxDeviceCgroup{}, "a"},
		{specs.LinuxDeviceCgroup{Allow: true, Access: "wrm"}, "a"},
		{specs.LinuxDeviceCgroup{Access: "w"}, "a"},
		{specs.LinuxDeviceCgroup{Allow: true, Access: "r"}, "b *:* r, c *:* r"},
		{specs.LinuxDeviceCgroup{Allow: true, Major: n(10), Minor: n(200)}, "b 10:200 rwm, c 10:200 rwm"},
		{specs.LinuxDeviceCgroup{Type: "a", Major: n(10), Access: "m"}, "b 10:* m, c 10:* m"},
		{specs.LinuxDeviceCgroup{Type: "c", Access: "m"}, "c *:* m"},
		{specs.LinuxDeviceCgroup{Type: "c", Major: n(136), Minor: n(-1)}, "c 136:* rwm"},
		{specs.LinuxDeviceCgroup{Type: "b", Major: n(8), Minor: n(1), Access: "r"}, "b 8:1 r"},
	} {
		if got := strings.Join(lines(c.rule), ", "); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	for _, bad := range []specs.LinuxDeviceCgroup{{Type: "x"}, {Type: "a c"}, {Access: "rx"}, {Major: n(-2)}} {
		if checkRules([]specs.LinuxDeviceCgroup{bad}) == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
}

// TestSettings: each field becomes the file of its version, or none, which is refused.
func TestSettings(t *testing.T) {
	limit, swap, swappiness, shares, quota, pids := int64(100), int64(150), uint64(10), uint64(1024), int64(5), int64(-1)
	weight := uint16(500)
	r := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &swap, Swappiness: &swappiness},
		CPU: &specs.LinuxCPU{Shares: &shares, Quota: &quota, Cpus: "0"}, Pids: &specs.LinuxPids{Limit: &pids},
		BlockIO: &specs.LinuxBlockIO{Weight: &weight}, HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 7}},
		Unified: map[string]string{"memory.high": "1", "cgroup.procs": "1", "a/../b.c": "1"}}
	for _, c := range []struct {
		v2    bool
		field string
		file  string
		value string
	}{
		{false, "memory.limit", "memory.limit_in_bytes", "100"}, {true, "memory.limit", "memory.max", "100"},
		{false, "memory.swap", "memory.memsw.limit_in_bytes", "150"}, {true, "memory.swap", "memory.swap.max", "50"},
		{false, "memory.swappiness", "memory.swappiness", "10"}, {true, "memory.swappiness", "", ""},
		{false, "cpu.shares", "cpu.shares", "1024"}, {true, "cpu.shares", "cpu.weight", "100"},
		{false, "cpu.quota", "cpu.cfs_quota_us", "5"}, {true, "cpu.quota", "cpu.max", "5 100000"},
		{false, "cpu.cpus", "cpuset.cpus", "0"}, {true, "pids.limit", "pids.max", "max"},
		{false, "blockIO.weight", "blkio.weight", "500"}, {true, "blockIO.weight", "io.bfq.weight", "500"},
		{true, "hugepageLimits", "hugetlb.2MB.max", "7"}, {false, "unified.memory.high", "", "1"},
		{true, "unified.memory.high", "memory.high", "1"}, {true, "unified.cgroup.procs", "", "1"}, {true, "unified.a/../b.c", "", "1"},
	} {
		found := false
		for _, s := range settings(r, c.v2) {
			if s.field == "linux.resources."+c.field {
				found = true
				if s.file != c.file || s.value != c.value {
					t.Errorf("v2 %v, %s: %q in %q", c.v2, c.field, s.value, s.file)
				}
			}
		}
		if !found {
			t.Errorf("v2 %v, %s is passed over", c.v2, c.field)
		}
	}
}
