package resources

import (
	"errors"
	"os"
	"strconv"
	"strings"

	"github.com/capsule-run/capsule/runtime/cgroup/oom"
	"github.com/capsule-run/capsule/spec/fault"
)

// Usage is what a group has used: bytes, nanoseconds and processes. A limit of none is
// the largest number.
type Usage struct {
	CPU, User, Kernel              uint64
	Memory, MemoryMax, MemoryLimit uint64
	Pids, PidsLimit                uint64
	OOMKills                       uint64
	Swap, SwapLimit                uint64
	Throttle                       Throttle
	// MemoryStat is memory.stat, whose names v1 and v2 have of their own.
	MemoryStat map[string]uint64
	// V2 says of which of them the numbers are.
	V2 bool
}

// Throttle is how often and how long a limit of the CPU held the group up.
type Throttle struct{ Periods, Throttled, Time uint64 }

// memoryDir is the directory with the files of the memory controller. Empty: there is none.
func (g *Group) memoryDir() string {
	if g.V2 {
		return g.Unified
	}
	return g.Dirs["memory"]
}

// kills is the count of the OOM killer.
func (r *reader) kills(g *Group) uint64 {
	if g.V2 {
		return r.key(g.memoryDir()+"/"+oom.CountV2, "oom_kill")
	}
	return r.key(g.memoryDir()+"/"+oom.CountV1, "oom_kill")
}

// OOMKills is how often the kernel has killed in the group for want of memory.
func (g *Group) OOMKills() (uint64, error) {
	r := reader{}
	if g.memoryDir() == "" {
		return 0, nil
	}
	n := r.kills(g)
	return n, r.err
}

// OOMEvents opens what becomes readable when the count may have changed: on v2 when it
// has, else when it soon will have. Nil: the group has no memory controller.
func (g *Group) OOMEvents() (events *os.File, soon bool, err error) {
	if g.memoryDir() == "" {
		return nil, false, nil
	}
	if events, err = oom.Events(g.memoryDir(), g.V2); errors.Is(err, os.ErrNotExist) {
		return nil, false, nil
	}
	return events, !g.V2, err
}

// Usage reads the accounts of the group. What the kernel has no account of is zero.
func (g *Group) Usage() (*Usage, error) {
	u := new(Usage)
	r := reader{}
	if g.V2 {
		d := g.Unified + "/"
		u.CPU, u.User, u.Kernel = r.key(d+"cpu.stat", "usage_usec")*1000, r.key(d+"cpu.stat", "user_usec")*1000, r.key(d+"cpu.stat", "system_usec")*1000
		u.Memory, u.MemoryMax, u.MemoryLimit = r.value(d+"memory.current"), r.value(d+"memory.peak"), r.value(d+"memory.max")
		u.Pids, u.PidsLimit = r.value(d+"pids.current"), r.value(d+"pids.max")
		u.OOMKills = r.kills(g)
		u.Swap, u.SwapLimit = r.value(d+"memory.swap.current"), r.value(d+"memory.swap.max")
		u.Throttle = Throttle{r.key(d+"cpu.stat", "nr_periods"), r.key(d+"cpu.stat", "nr_throttled"), r.key(d+"cpu.stat", "throttled_usec") * 1000}
		u.MemoryStat, u.V2 = r.keys(d+"memory.stat"), true
		return u, r.err
	}
	const tick = 1e9 / 100 // USER_HZ, which is the same everywhere
	in := func(controller, file string) string { return g.Dirs[controller] + "/" + file }
	if g.Dirs["cpuacct"] != "" {
		u.CPU = r.value(in("cpuacct", "cpuacct.usage"))
		u.User, u.Kernel = r.key(in("cpuacct", "cpuacct.stat"), "user")*tick, r.key(in("cpuacct", "cpuacct.stat"), "system")*tick
	}
	if g.Dirs["cpu"] != "" {
		file := in("cpu", "cpu.stat")
		u.Throttle = Throttle{r.key(file, "nr_periods"), r.key(file, "nr_throttled"), r.key(file, "throttled_time")}
	}
	if g.Dirs["memory"] != "" {
		u.Memory, u.MemoryMax = r.value(in("memory", "memory.usage_in_bytes")), r.value(in("memory", "memory.max_usage_in_bytes"))
		u.MemoryStat = r.keys(in("memory", "memory.stat"))
		u.MemoryLimit, u.OOMKills = r.value(in("memory", "memory.limit_in_bytes")), r.kills(g)
	}
	if g.Dirs["pids"] != "" {
		u.Pids, u.PidsLimit = r.value(in("pids", "pids.current")), r.value(in("pids", "pids.max"))
	}
	return u, r.err
}

// reader keeps the first error.
type reader struct{ err error }

func (r *reader) read(file string) string {
	text, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) && r.err == nil {
		r.err = fault.Wrap(fault.Cgroup, "read", err).WithPath(file)
	}
	return string(text)
}

func (r *reader) value(file string) uint64 {
	text := strings.TrimSpace(r.read(file))
	if text == "max" {
		return 1<<64 - 1
	}
	n, _ := strconv.ParseUint(text, 10, 64) // an empty file: there is no account
	return n
}

func (r *reader) key(file, key string) uint64 { return r.keys(file)[key] }

// keys are all of a file.
func (r *reader) keys(file string) map[string]uint64 {
	all := map[string]uint64{}
	for line := range strings.Lines(r.read(file)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			all[name], _ = strconv.ParseUint(value, 10, 64) // the kernel writes numbers
		}
	}
	return all
}
