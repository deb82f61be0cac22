package resources

import (
	"math"
	"sort"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// setting is a value for one file of a controller.
type setting struct {
	field      string
	controller string
	file       string // empty: this version of control groups has no such thing
	value      string
	// other is a file to try where the kernel does not have the first.
	other string
}

// list collects settings.
type list []setting

func (l *list) add(field, controller, file, value string) {
	*l = append(*l, setting{field: "linux.resources." + field, controller: controller, file: file, value: value})
}

func signed(n int64) string    { return strconv.FormatInt(n, 10) }
func unsigned(n uint64) string { return strconv.FormatUint(n, 10) }

// limit is a number of which -1 means none, as v2 writes it.
func limit(n int64) string {
	if n < 0 {
		return "max"
	}
	return signed(n)
}

// settings are what r asks for, in the order in which it must be written.
func settings(r *specs.LinuxResources, v2 bool) []setting {
	var l list
	if r == nil {
		return nil
	}
	if r.Memory != nil {
		if v2 {
			l.memory2(r.Memory)
		} else {
			l.memory1(r.Memory)
		}
	}
	if r.CPU != nil {
		l.cpu(r.CPU, v2)
	}
	if r.Pids != nil && r.Pids.Limit != nil {
		value := "max"
		if *r.Pids.Limit > 0 {
			value = signed(*r.Pids.Limit)
		}
		l.add("pids.limit", "pids", "pids.max", value)
	}
	if r.BlockIO != nil {
		if v2 {
			l.io2(r.BlockIO)
		} else {
			l.io1(r.BlockIO)
		}
	}
	l.rest(r, v2)
	return l
}

func (l *list) memory1(m *specs.LinuxMemory) {
	if m.UseHierarchy != nil {
		l.add("memory.useHierarchy", "memory", "memory.use_hierarchy", flag(*m.UseHierarchy))
	}
	if m.Limit != nil && *m.Limit != 0 {
		l.add("memory.limit", "memory", "memory.limit_in_bytes", signed(*m.Limit))
	}
	if m.Swap != nil && *m.Swap != 0 {
		l.add("memory.swap", "memory", "memory.memsw.limit_in_bytes", signed(*m.Swap))
	}
	if m.Reservation != nil && *m.Reservation != 0 {
		l.add("memory.reservation", "memory", "memory.soft_limit_in_bytes", signed(*m.Reservation))
	}
	//lint:ignore SA1019 A deprecated field is still set, or refused by the kernel.
	kernel := m.Kernel
	if kernel != nil && *kernel != 0 {
		l.add("memory.kernel", "memory", "memory.kmem.limit_in_bytes", signed(*kernel))
	}
	if m.KernelTCP != nil && *m.KernelTCP != 0 {
		l.add("memory.kernelTCP", "memory", "memory.kmem.tcp.limit_in_bytes", signed(*m.KernelTCP))
	}
	if m.Swappiness != nil {
		l.add("memory.swappiness", "memory", "memory.swappiness", unsigned(*m.Swappiness))
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		l.add("memory.disableOOMKiller", "memory", "memory.oom_control", "1")
	}
	if m.CheckBeforeUpdate != nil && *m.CheckBeforeUpdate {
		l.add("memory.checkBeforeUpdate", "memory", "", "")
	}
}

func flag(on bool) string {
	if on {
		return "1"
	}
	return "0"
}

func (l *list) memory2(m *specs.LinuxMemory) {
	if m.Limit != nil && *m.Limit != 0 {
		l.add("memory.limit", "memory", "memory.max", limit(*m.Limit))
	}
	if m.Swap != nil && *m.Swap != 0 {
		// OCI's number is memory and swap together, as on v1.
		value := limit(*m.Swap)
		if *m.Swap > 0 && m.Limit != nil && *m.Limit > 0 {
			value = signed(max(0, *m.Swap-*m.Limit))
		}
		l.add("memory.swap", "memory", "memory.swap.max", value)
	}
	if m.Reservation != nil && *m.Reservation != 0 {
		l.add("memory.reservation", "memory", "memory.low", limit(*m.Reservation))
	}
	//lint:ignore SA1019 A deprecated field is refused by name.
	kernel := m.Kernel != nil && *m.Kernel > 0
	for _, absent := range []struct {
		asked bool
		field string
	}{{kernel, "kernel"}, {m.KernelTCP != nil && *m.KernelTCP > 0, "kernelTCP"}, {m.Swappiness != nil, "swappiness"},
		{m.DisableOOMKiller != nil && *m.DisableOOMKiller, "disableOOMKiller"}, {m.UseHierarchy != nil && !*m.UseHierarchy, "useHierarchy"},
		{m.CheckBeforeUpdate != nil && *m.CheckBeforeUpdate, "checkBeforeUpdate"}} {
		if absent.asked {
			l.add("memory."+absent.field, "memory", "", "")
		}
	}
}

func (l *list) cpu(c *specs.LinuxCPU, v2 bool) {
	if c.Idle != nil {
		l.add("cpu.idle", "cpu", "cpu.idle", signed(*c.Idle))
	}
	if c.Shares != nil && *c.Shares != 0 {
		if v2 {
			l.add("cpu.shares", "cpu", "cpu.weight", unsigned(weight(*c.Shares)))
		} else {
			l.add("cpu.shares", "cpu", "cpu.shares", unsigned(*c.Shares))
		}
	}
	switch {
	case v2 && (c.Quota != nil && *c.Quota != 0 || c.Period != nil && *c.Period != 0):
		quota, period := "max", "100000"
		if c.Quota != nil && *c.Quota > 0 {
			quota = signed(*c.Quota)
		}
		if c.Period != nil && *c.Period != 0 {
			period = unsigned(*c.Period)
		}
		l.add("cpu.quota", "cpu", "cpu.max", quota+" "+period)
	case !v2:
		if c.Period != nil && *c.Period != 0 {
			l.add("cpu.period", "cpu", "cpu.cfs_period_us", unsigned(*c.Period))
		}
		if c.Quota != nil && *c.Quota != 0 {
			l.add("cpu.quota", "cpu", "cpu.cfs_quota_us", signed(*c.Quota))
		}
	}
	if c.Burst != nil {
		file := "cpu.cfs_burst_us"
		if v2 {
			file = "cpu.max.burst"
		}
		l.add("cpu.burst", "cpu", file, unsigned(*c.Burst))
	}
	period, runtime := "cpu.rt_period_us", "cpu.rt_runtime_us"
	if v2 {
		period, runtime = "", "" // no kernel has them there
	}
	if c.RealtimePeriod != nil && *c.RealtimePeriod != 0 {
		l.add("cpu.realtimePeriod", "cpu", period, unsigned(*c.RealtimePeriod))
	}
	if c.RealtimeRuntime != nil && *c.RealtimeRuntime != 0 {
		l.add("cpu.realtimeRuntime", "cpu", runtime, signed(*c.RealtimeRuntime))
	}
	if c.Cpus != "" {
		l.add("cpu.cpus", "cpuset", "cpuset.cpus", c.Cpus)
	}
	if c.Mems != "" {
		l.add("cpu.mems", "cpuset", "cpuset.mems", c.Mems)
	}
}

// weight converts CPU shares of v1 to a weight of v2, by the formula of runc 1.3 and
// crun 1.23.
func weight(shares uint64) uint64 {
	switch {
	case shares <= 2:
		return 1
	case shares >= 262144:
		return 10000
	}
	x := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (x*x+125*x)/612.0-7.0/34.0)))
}

func device(major, minor int64) string { return signed(major) + ":" + signed(minor) }

func (l *list) io1(b *specs.LinuxBlockIO) {
	weighed := func(field, file, other, value string) {
		l.add("blockIO."+field, "blkio", file, value)
		(*l)[len(*l)-1].other = other
	}
	if b.Weight != nil && *b.Weight != 0 {
		weighed("weight", "blkio.weight", "blkio.bfq.weight", unsigned(uint64(*b.Weight)))
	}
	if b.LeafWeight != nil && *b.LeafWeight != 0 {
		weighed("leafWeight", "blkio.leaf_weight", "", unsigned(uint64(*b.LeafWeight)))
	}
	for _, d := range b.WeightDevice {
		if d.Weight != nil {
			weighed("weightDevice", "blkio.weight_device", "blkio.bfq.weight_device", device(d.Major, d.Minor)+" "+unsigned(uint64(*d.Weight)))
		}
		if d.LeafWeight != nil {
			weighed("weightDevice", "blkio.leaf_weight_device", "", device(d.Major, d.Minor)+" "+unsigned(uint64(*d.LeafWeight)))
		}
	}
	for _, t := range throttles(b) {
		for _, d := range t.devices {
			l.add("blockIO."+t.field, "blkio", "blkio.throttle."+t.v1, device(d.Major, d.Minor)+" "+unsigned(d.Rate))
		}
	}
}

type throttle struct {
	field, v1, v2 string
	devices       []specs.LinuxThrottleDevice
}

func throttles(b *specs.LinuxBlockIO) []throttle {
	return []throttle{{"throttleReadBpsDevice", "read_bps_device", "rbps", b.ThrottleReadBpsDevice}, {"throttleWriteBpsDevice", "write_bps_device", "wbps", b.ThrottleWriteBpsDevice},
		{"throttleReadIOPSDevice", "read_iops_device", "riops", b.ThrottleReadIOPSDevice}, {"throttleWriteIOPSDevice", "write_iops_device", "wiops", b.ThrottleWriteIOPSDevice}}
}

func (l *list) io2(b *specs.LinuxBlockIO) {
	if b.Weight != nil && *b.Weight != 0 {
		// 10..1000 of v1 is 1..10000 of io.weight, as runc and crun convert it; BFQ keeps
		// the range.
		l.add("blockIO.weight", "io", "io.bfq.weight", unsigned(uint64(*b.Weight)))
		if *b.Weight >= 10 {
			(*l)[len(*l)-1].other = "io.weight"
		}
	}
	if b.LeafWeight != nil && *b.LeafWeight != 0 {
		l.add("blockIO.leafWeight", "io", "", "")
	}
	for _, d := range b.WeightDevice {
		if d.Weight != nil {
			l.add("blockIO.weightDevice", "io", "io.bfq.weight", device(d.Major, d.Minor)+" "+unsigned(uint64(*d.Weight)))
		}
		if d.LeafWeight != nil {
			l.add("blockIO.weightDevice", "io", "", "")
		}
	}
	for _, t := range throttles(b) {
		for _, d := range t.devices {
			l.add("blockIO."+t.field, "io", "io.max", device(d.Major, d.Minor)+" "+t.v2+"="+unsigned(d.Rate))
		}
	}
}

// rest are huge pages, network, RDMA and files of v2 by their own names.
func (l *list) rest(r *specs.LinuxResources, v2 bool) {
	for _, h := range r.HugepageLimits {
		file := "hugetlb." + h.Pagesize + ".limit_in_bytes"
		if v2 {
			file = "hugetlb." + h.Pagesize + ".max"
		}
		if strings.Contains(h.Pagesize, "/") {
			file = ""
		}
		l.add("hugepageLimits", "hugetlb", file, unsigned(h.Limit))
	}
	if n := r.Network; n != nil {
		classid, prio := "net_cls.classid", "net_prio.ifpriomap"
		if v2 {
			classid, prio = "", ""
		}
		if n.ClassID != nil && *n.ClassID != 0 {
			l.add("network.classID", "net_cls", classid, unsigned(uint64(*n.ClassID)))
		}
		for _, p := range n.Priorities {
			l.add("network.priorities", "net_prio", prio, p.Name+" "+unsigned(uint64(p.Priority)))
		}
	}
	for _, name := range sorted(r.Rdma) {
		d, words := r.Rdma[name], name
		if d.HcaHandles != nil {
			words += " hca_handle=" + unsigned(uint64(*d.HcaHandles))
		}
		if d.HcaObjects != nil {
			words += " hca_object=" + unsigned(uint64(*d.HcaObjects))
		}
		l.add("rdma", "rdma", "rdma.max", words)
	}
	for _, key := range sorted(r.Unified) {
		controller, _, _ := strings.Cut(key, ".")
		file := key
		if !v2 || controller == "cgroup" || strings.Contains(key, "/") {
			file = ""
		}
		l.add("unified."+key, controller, file, r.Unified[key])
	}
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
