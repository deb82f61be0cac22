package resources

import (
	"math"
	"strconv"
	"strings"

	"github.com/capsule-run/capsule/runtime/container/scope"
	"github.com/capsule-run/capsule/runtime/plan"
)

// words are what systemd calls files of control groups that hold one number, or none.
var words = map[string]string{
	"memory.max": "MemoryMax", "memory.high": "MemoryHigh", "memory.low": "MemoryLow", "memory.min": "MemoryMin", "memory.swap.max": "MemorySwapMax",
	"cpu.weight": "CPUWeight", "pids.max": "TasksMax", "memory.limit_in_bytes": "MemoryLimit", "cpu.shares": "CPUShares",
}

// properties are those of the settings that systemd has a word for, and would write itself.
// A value that cannot be read is left to the kernel to refuse.
func properties(all []setting, v2 bool) (list []scope.Property) {
	add := func(since int, name string, value any) {
		list = append(list, scope.Property{Name: name, Value: value, Since: since})
	}
	quota, period := "", "100000"
	for _, s := range all {
		switch s.file {
		case "cpu.max":
			quota, period, _ = strings.Cut(s.value, " ")
		case "cpu.cfs_quota_us":
			quota = s.value
		case "cpu.cfs_period_us":
			period = s.value
		case "cpuset.cpus", "cpuset.mems":
			name := map[string]string{"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}[s.file]
			if mask, ok := plan.CPUs(s.value); ok && v2 {
				add(244, name, mask)
			}
		default:
			if n, ok := endless(s.value); ok && words[s.file] != "" {
				add(0, words[s.file], n)
			}
		}
	}
	q, ok := endless(quota)
	p, known := endless(period)
	if ok && known && p > 0 {
		if q < math.MaxUint64/1000000 {
			// systemd keeps hundredths of a CPU; more is nearer than less.
			q = (q*1000000/p + 9999) / 10000 * 10000
		}
		add(0, "CPUQuotaPerSecUSec", q)
		add(242, "CPUQuotaPeriodUSec", p)
	}
	return list
}

// endless is a number of which "max" and less than 0 mean that there is no limit.
func endless(value string) (uint64, bool) {
	if value == "max" || strings.HasPrefix(value, "-") {
		return math.MaxUint64, true
	}
	n, err := strconv.ParseUint(value, 10, 64)
	return n, err == nil
}
