package cgroup

import (
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// Stats is what an execution used, counted by the kernel over the life of the
// group. nil: this host did not measure it.
type Stats struct {
	// MemoryPeak is the highest memory use, in bytes, page cache, tmpfs and
	// kernel memory included (v2 since kernel 5.19).
	MemoryPeak *int64
	// MemoryCurrent is the memory in use now, in bytes.
	MemoryCurrent *int64
	// CPU is the CPU time in all. User and Kernel are its parts; their sum is CPU.
	CPU, User, Kernel *time.Duration
	// Throttled is how long the group waited for its CPU quota.
	Throttled *time.Duration
	// PidsPeak is the highest number of processes and threads (since kernel 6.1).
	PidsPeak *int64
	// PidsLimitHits counts forks that the limit on pids refused.
	PidsLimitHits *int64
	// MemoryLimitHits counts how often the group's own limit left no memory to
	// give (v2 only). OOMKills without any were for want of memory around it.
	MemoryLimitHits *int64
	// OOMKills counts processes of the group that the kernel's OOM killer killed.
	OOMKills *int64
	// IORead and IOWritten are bytes moved from and to block devices.
	IORead, IOWritten *int64
}

// Pressure is how long tasks of the group waited for a resource, from the
// kernel's pressure stall information. nil: not measured.
type Pressure struct {
	// SomeCPU, SomeMemory and SomeIO: at least one task waited.
	SomeCPU, SomeMemory, SomeIO *time.Duration
	// FullMemory and FullIO: all tasks that could run waited.
	FullMemory, FullIO *time.Duration
}

// number reads a file that holds one number. "max" is not a number.
func number(content string) *int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(content), 10, 64)
	if err != nil || n < 0 {
		return nil
	}
	return &n
}

// keyed finds "key N" in a flat keyed file.
func keyed(content, key string) *int64 {
	for line := range strings.Lines(content) {
		if name, value, ok := strings.Cut(line, " "); ok && name == key {
			return number(value)
		}
	}
	return nil
}

func duration(n *int64, unit time.Duration) *time.Duration {
	if n == nil {
		return nil
	}
	d := time.Duration(*n) * unit
	return &d
}

// cpuStat reads cpu.stat of v2, which exists without the cpu controller too.
func (s *Stats) cpuStat(content string) {
	s.CPU = duration(keyed(content, "usage_usec"), time.Microsecond)
	s.User = duration(keyed(content, "user_usec"), time.Microsecond)
	s.Kernel = duration(keyed(content, "system_usec"), time.Microsecond)
	if s.CPU != nil && s.User != nil {
		// The three are rounded to microseconds one by one.
		kernel := max(0, *s.CPU-*s.User)
		s.Kernel = &kernel
	}
}

// oomKills reads memory.events of v2. With memory.oom.group the kernel counts the
// process that it chose twice: once as the victim (oom_kill_process) and once as
// a member of the group (oom_kill_memcg_member), unless it was gone by then.
func (s *Stats) oomKills(content string) {
	s.OOMKills = keyed(content, "oom_kill")
	if s.OOMKills == nil || *s.OOMKills == 0 {
		return
	}
	// oom_group_kill exists since 5.17.
	*s.OOMKills = max(1, *s.OOMKills-orZero(keyed(content, "oom_group_kill")))
}

// cpuacct combines cpuacct.usage, which is exact, with usage_user and usage_sys,
// which are sampled at clock ticks and are zero for a short run. They divide the
// exact sum as the kernel's cputime_adjust does for getrusage and for v2.
func (s *Stats) cpuacct(usage, user, system *int64) {
	if usage == nil {
		return
	}
	s.CPU = duration(usage, time.Nanosecond)
	if user == nil || system == nil {
		return
	}
	kernel := int64(0)
	if *system > 0 {
		hi, lo := bits.Mul64(uint64(*usage), uint64(*system))
		share, _ := bits.Div64(hi, lo, uint64(*user)+uint64(*system))
		kernel = int64(share)
	}
	inUser := *usage - kernel
	s.User, s.Kernel = duration(&inUser, time.Nanosecond), duration(&kernel, time.Nanosecond)
}

// ioStat adds up io.stat of v2: "8:0 rbytes=1 wbytes=2 rios=...".
func (s *Stats) ioStat(content string) {
	var read, written int64
	for _, field := range strings.Fields(content) {
		if value, ok := strings.CutPrefix(field, "rbytes="); ok {
			read += orZero(number(value))
		} else if value, ok := strings.CutPrefix(field, "wbytes="); ok {
			written += orZero(number(value))
		}
	}
	s.IORead, s.IOWritten = &read, &written
}

// blkio adds up blkio.throttle.io_service_bytes_recursive: "8:0 Read 4096".
func (s *Stats) blkio(content string) {
	var read, written int64
	for line := range strings.Lines(content) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			continue
		}
		switch fields[1] {
		case "Read":
			read += orZero(number(fields[2]))
		case "Write":
			written += orZero(number(fields[2]))
		}
	}
	s.IORead, s.IOWritten = &read, &written
}

func orZero(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}

// stall finds total of the line "some" or "full" of a pressure file.
func stall(content, line string) *time.Duration {
	for text := range strings.Lines(content) {
		fields := strings.Fields(text)
		if len(fields) == 0 || fields[0] != line {
			continue
		}
		for _, field := range fields[1:] {
			if value, ok := strings.CutPrefix(field, "total="); ok {
				return duration(number(value), time.Microsecond)
			}
		}
	}
	return nil
}
