package cgroup

import (
	"math"
	"sort"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Names of limits, as enforcement reports and allow_degraded spell them.
const (
	LimitMemory      = "memory"
	LimitSwap        = "swap"
	LimitReservation = "memory_reservation"
	LimitPids        = "pids"
	LimitCPUShares   = "cpu_shares"
	LimitCPUQuota    = "cpu_quota"
	LimitIO          = "io"
)

// setting is one value in one file of a group.
type setting struct {
	// limit is the limit that the setting belongs to. Empty: a supporting
	// setting that need not be there and is not reported.
	limit      string
	controller string
	file       string
	value      string
	// confirms says whether the file's content, read back, means that the
	// kernel took the value. It may keep a smaller number, never a larger one.
	confirms func(content, value string) bool
}

// want is a limit of the request whether or not it can be set.
type want struct {
	limit      string
	controller string
	// field is where the OCI configuration has it.
	field    string
	settings func(version int) []setting
}

// wants lists the limits of r in the order in which they must be written. A
// limit that this package cannot set on any host has no settings function.
func wants(r *specs.LinuxResources) []want {
	if r == nil {
		return nil
	}
	var list []want
	list = append(list, memoryWants(r.Memory)...)
	if r.Pids != nil && r.Pids.Limit != nil && *r.Pids.Limit > 0 {
		value := strconv.FormatInt(*r.Pids.Limit, 10)
		list = append(list, want{LimitPids, Pids, "linux.resources.pids.limit", func(int) []setting {
			return []setting{{LimitPids, Pids, "pids.max", value, same}}
		}})
	}
	list = append(list, cpuWants(r.CPU)...)
	list = append(list, ioWants(r.BlockIO)...)
	return append(list, otherWants(r)...)
}

func memoryWants(m *specs.LinuxMemory) []want {
	if m == nil {
		return nil
	}
	var list []want
	if m.Limit != nil && *m.Limit > 0 {
		list = append(list, want{LimitMemory, Memory, "linux.resources.memory.limit", func(version int) []setting {
			value := strconv.FormatInt(*m.Limit, 10)
			if version == 1 {
				return []setting{{LimitMemory, Memory, "memory.limit_in_bytes", value, atMost}}
			}
			return []setting{
				{LimitMemory, Memory, "memory.max", value, atMost},
				// A payload that lost one of its processes to the OOM killer
				// computes wrong answers; the group dies as one (since 4.19).
				{"", Memory, "memory.oom.group", "1", same},
			}
		}})
		list = append(list, want{LimitSwap, Memory, "linux.resources.memory.swap", func(version int) []setting {
			return []setting{swapSetting(m, version)}
		}})
	}
	if m.Reservation != nil && *m.Reservation > 0 {
		list = append(list, want{LimitReservation, Memory, "linux.resources.memory.reservation", func(version int) []setting {
			value := strconv.FormatInt(*m.Reservation, 10)
			file := "memory.low"
			if version == 1 {
				file = "memory.soft_limit_in_bytes"
			}
			return []setting{{LimitReservation, Memory, file, value, atMost}}
		}})
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		list = append(list, want{limit: "oom_killer", controller: Memory, field: "linux.resources.memory.disableOOMKiller"})
	}
	return list
}

// swapSetting: OCI's swap is memory and swap together, as on v1; absent means
// no swap at all here, for the limit on memory would mean little with it.
func swapSetting(m *specs.LinuxMemory, version int) setting {
	total := *m.Limit
	if m.Swap != nil && *m.Swap != 0 {
		total = *m.Swap
	}
	if version == 1 {
		return setting{LimitSwap, Memory, "memory.memsw.limit_in_bytes", strconv.FormatInt(total, 10), atMost}
	}
	value := "max"
	if total >= 0 {
		value = strconv.FormatInt(max(0, total-*m.Limit), 10)
	}
	return setting{LimitSwap, Memory, "memory.swap.max", value, atMost}
}

func cpuWants(c *specs.LinuxCPU) []want {
	if c == nil {
		return nil
	}
	var list []want
	if c.Shares != nil && *c.Shares > 0 {
		list = append(list, want{LimitCPUShares, CPU, "linux.resources.cpu.shares", func(version int) []setting {
			if version == 1 {
				return []setting{{LimitCPUShares, CPU, "cpu.shares", strconv.FormatUint(*c.Shares, 10), same}}
			}
			return []setting{{LimitCPUShares, CPU, "cpu.weight", strconv.FormatUint(weight(*c.Shares), 10), same}}
		}})
	}
	if c.Quota != nil && *c.Quota > 0 {
		list = append(list, want{LimitCPUQuota, CPU, "linux.resources.cpu.quota", func(version int) []setting {
			period := "100000"
			if c.Period != nil && *c.Period > 0 {
				period = strconv.FormatUint(*c.Period, 10)
			}
			quota := strconv.FormatInt(*c.Quota, 10)
			if version == 1 {
				return []setting{
					{LimitCPUQuota, CPU, "cpu.cfs_period_us", period, same},
					{LimitCPUQuota, CPU, "cpu.cfs_quota_us", quota, same},
				}
			}
			return []setting{{LimitCPUQuota, CPU, "cpu.max", quota + " " + period, same}}
		}})
	}
	if c.Cpus != "" || c.Mems != "" {
		list = append(list, want{limit: "cpuset", controller: "cpuset", field: "linux.resources.cpu.cpus"})
	}
	if c.RealtimeRuntime != nil || c.RealtimePeriod != nil {
		list = append(list, want{limit: "cpu_realtime", controller: CPU, field: "linux.resources.cpu.realtimeRuntime"})
	}
	return list
}

// weight converts v1 CPU shares (2..262144) to a v2 weight (1..10000) by the
// formula of runc 1.3 and crun 1.23, which maps the default 1024 to 100. It is
// the same as ConvertCPUSharesToCgroupV2Value of containerd/cgroups; a
// test compares them.
func weight(shares uint64) uint64 {
	switch {
	case shares <= 2:
		return 1
	case shares >= 262144:
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612.0-7.0/34.0)))
}

// otherWants are resources that this package sets on no host. devices is not
// among them: inside a user namespace mknod is refused and device nodes come
// from the launch plan alone.
func otherWants(r *specs.LinuxResources) []want {
	var list []want
	if len(r.HugepageLimits) > 0 {
		list = append(list, want{limit: "hugepages", controller: "hugetlb", field: "linux.resources.hugepageLimits"})
	}
	if r.Network != nil {
		list = append(list, want{limit: "network", controller: "net_cls", field: "linux.resources.network"})
	}
	if len(r.Rdma) > 0 {
		list = append(list, want{limit: "rdma", controller: "rdma", field: "linux.resources.rdma"})
	}
	keys := make([]string, 0, len(r.Unified))
	for key := range r.Unified {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	for _, key := range keys {
		controller, _, _ := strings.Cut(key, ".")
		w := want{limit: key, controller: controller, field: "linux.resources.unified"}
		// A key names a file of a resource controller; cgroup.* and anything
		// with a slash would reach beyond limits.
		if controller != "cgroup" && !strings.Contains(key, "/") {
			value := r.Unified[key]
			w.settings = func(version int) []setting {
				if version == 1 {
					return nil
				}
				return []setting{{key, controller, key, value, func(string, string) bool { return true }}}
			}
		}
		list = append(list, w)
	}
	return list
}

// atLeast compares a kernel release such as "6.1.0-56-cloud-amd64".
func atLeast(release string, major, minor int) bool {
	first, rest, _ := strings.Cut(release, ".")
	digits := 0
	for digits < len(rest) && rest[digits] >= '0' && rest[digits] <= '9' {
		digits++
	}
	a, errA := strconv.Atoi(first)
	b, errB := strconv.Atoi(rest[:digits])
	return errA == nil && errB == nil && (a > major || (a == major && b >= minor))
}

func same(content, value string) bool { return strings.TrimSpace(content) == value }

// atMost accepts the value rounded down to the size of a page (64 KiB at most).
func atMost(content, value string) bool {
	content = strings.TrimSpace(content)
	if content == value {
		return true
	}
	got, err := strconv.ParseUint(content, 10, 64)
	if err != nil {
		return false
	}
	asked, err := strconv.ParseUint(value, 10, 64)
	return err == nil && got <= asked && asked-got < 1<<16
}
