package bundle

import (
	"math"
	"strconv"

	"github.com/capsule-run/capsule/spec/fault"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// cpuPeriod is the enforcement interval of the CPU quota, in microseconds: the
// kernel's default.
const cpuPeriod = 100000

// resources translates the limits that control groups enforce.
func (b *builder) resources() *specs.LinuxResources {
	r := &b.req.Resources
	// OCI counts swap on top of memory: equal values leave none.
	memory, swap := r.MemoryBytes, r.MemoryBytes
	shares := uint64(r.CPUShares)
	pids := r.MaxPids
	if b.req.Isolation.Init {
		// Our reaping process 1 sits in the same control group and is not the
		// payload's to pay for.
		pids++
	}
	cpu := &specs.LinuxCPU{Shares: &shares}
	if r.CPUQuota != nil {
		quota, period := int64(math.Round(*r.CPUQuota*cpuPeriod)), uint64(cpuPeriod)
		cpu.Quota, cpu.Period = &quota, &period
	}
	return &specs.LinuxResources{
		Memory:  &specs.LinuxMemory{Limit: &memory, Swap: &swap},
		CPU:     cpu,
		Pids:    &specs.LinuxPids{Limit: &pids},
		BlockIO: b.blockIO(),
	}
}

// checkRanges refuses what this host cannot give. The ranges that do not depend
// on the host are the business of package spec.
func (b *builder) checkRanges() {
	r := &b.req.Resources
	if b.host.HostMemory > 0 && r.MemoryBytes > b.host.HostMemory {
		b.refuse(fault.OutOfRange, "/resources/memory_bytes",
			"at most "+strconv.FormatInt(b.host.HostMemory, 10)+", the memory of this host")
	}
	if r.CPUQuota != nil {
		q := *r.CPUQuota
		switch {
		case math.IsNaN(q) || q < 0.01:
			b.refuse(fault.OutOfRange, "/resources/cpu_quota", "at least 0.01 cores")
		case b.host.HostCPUs > 0 && q > float64(b.host.HostCPUs):
			b.refuse(fault.OutOfRange, "/resources/cpu_quota",
				"at most "+strconv.Itoa(b.host.HostCPUs)+", the cores of this host")
		}
	}
}

// maxOps is the largest number of operations that the kernel keeps as a bound:
// one more means none to it, and no disk comes near it.
const maxOps = 1<<32 - 2

// blockIO bounds every disk in the same way. Nil: nothing is bounded.
func (b *builder) blockIO() *specs.LinuxBlockIO {
	io := b.req.Resources.IO
	if !io.Bounds() || len(b.host.Disks) == 0 {
		return nil
	}
	on := func(rate *int64, most int64) []specs.LinuxThrottleDevice {
		if rate == nil {
			return nil
		}
		list := make([]specs.LinuxThrottleDevice, len(b.host.Disks))
		for i, d := range b.host.Disks {
			list[i].Major, list[i].Minor, list[i].Rate = d.Major, d.Minor, uint64(min(*rate, most))
		}
		return list
	}
	return &specs.LinuxBlockIO{
		ThrottleReadBpsDevice: on(io.ReadBytesPerSecond, math.MaxInt64), ThrottleWriteBpsDevice: on(io.WriteBytesPerSecond, math.MaxInt64),
		ThrottleReadIOPSDevice: on(io.ReadOpsPerSecond, maxOps), ThrottleWriteIOPSDevice: on(io.WriteOpsPerSecond, maxOps),
	}
}
