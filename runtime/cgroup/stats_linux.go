package cgroup

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec/fault"
)

// Stats reads the counters of the group. They stay readable after the last
// process is gone, until Remove. A counter that this kernel has not is nil; an
// error (E2002) means that one which exists could not be read.
func (g *Group) Stats() (Stats, error) {
	var s Stats
	r := reader{kept: &g.kept}
	g.count(&s, &r)
	return s, r.err
}

// keep opens the files that Stats reads, so that the end of an execution need not:
// it is waited for, and a group is mostly made before anybody waits. What cannot be
// opened is left to Stats.
func (g *Group) keep() {
	r := reader{kept: &g.kept, ahead: true}
	g.count(&Stats{}, &r)
}

// count reads the files of Stats.
func (g *Group) count(s *Stats, r *reader) {
	if m := g.with(Memory); m != nil {
		r.memory(s, m)
	}
	if m := g.with(Pids); m != nil {
		s.PidsPeak = number(r.file(m, "pids.peak"))
		s.PidsLimitHits = keyed(r.file(m, "pids.events"), "max")
	}
	if m := g.v2(); m != nil {
		content := r.file(m, "cpu.stat")
		s.cpuStat(content)
		s.Throttled = duration(keyed(content, "throttled_usec"), time.Microsecond)
	} else if m := g.with(CPUAcct); m != nil {
		s.cpuacct(number(r.file(m, "cpuacct.usage")), number(r.file(m, "cpuacct.usage_user")), number(r.file(m, "cpuacct.usage_sys")))
	}
	if m := g.with(CPU); m != nil && m.version == 1 {
		s.Throttled = duration(keyed(r.file(m, "cpu.stat"), "throttled_time"), time.Nanosecond)
	}
	if m := g.with(IO); m != nil {
		r.io(s, m)
	}
}

// Pids is the number of processes and threads in the group now; nil: it is not
// counted. It is apart from Stats because only who watches wants it.
func (g *Group) Pids() *int64 {
	m := g.with(Pids)
	if m == nil {
		return nil
	}
	r := reader{}
	n := number(r.file(m, "pids.current"))
	if r.err != nil {
		return nil
	}
	return n
}

// Sample reads what is in use now and the CPU time so far; nil: not measured. It
// is a part of Stats, for who asks often, and may be called like it.
func (g *Group) Sample() (memory *int64, cpu *time.Duration, pids *int64) {
	r := reader{kept: &g.kept}
	if m := g.with(Memory); m != nil {
		name := "memory.current"
		if m.version == 1 {
			name = "memory.usage_in_bytes"
		}
		memory = number(r.file(m, name))
	}
	if m := g.v2(); m != nil {
		cpu = duration(keyed(r.file(m, "cpu.stat"), "usage_usec"), time.Microsecond)
	} else if m := g.with(CPUAcct); m != nil {
		cpu = duration(number(r.file(m, "cpuacct.usage")), time.Nanosecond)
	}
	return memory, cpu, g.Pids()
}

// Pressure reads the pressure stall information of the group, which only the
// v2 tree has. It is apart from Stats because few callers want its three files.
func (g *Group) Pressure() (Pressure, error) {
	var p Pressure
	m := g.v2()
	if m == nil {
		return p, nil
	}
	r := reader{}
	p.SomeCPU = stall(r.file(m, "cpu.pressure"), "some")
	memory := r.file(m, "memory.pressure")
	p.SomeMemory, p.FullMemory = stall(memory, "some"), stall(memory, "full")
	io := r.file(m, "io.pressure")
	p.SomeIO, p.FullIO = stall(io, "some"), stall(io, "full")
	return p, r.err
}

// reader collects the first failure, so that one bad file does not hide the
// other counters.
type reader struct {
	buffer
	err error
	// missing is true when the last file does not exist.
	missing bool
	// kept are descriptors to read from where there is one; nil: there are none.
	kept *kept
	// ahead: the files are opened and kept, and not read.
	ahead bool
}

func (r *reader) file(m *member, name string) string {
	path := m.path + "/" + name
	if r.ahead {
		r.kept.open(path)
		return ""
	}
	content, err := r.kept.read(&r.buffer, path)
	// A kernel built without pressure information, or told to go without, has
	// the files and answers EOPNOTSUPP. ENODEV: the group is gone, and was kept open.
	r.missing = errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENODEV)
	if err != nil && !r.missing && r.err == nil {
		r.err = fault.Wrap(fault.Cgroup, "read", err).WithPath(path)
	}
	return content
}

func (r *reader) memory(s *Stats, m *member) {
	if m.version == 1 {
		s.MemoryPeak = number(r.file(m, "memory.max_usage_in_bytes"))
		s.MemoryCurrent = number(r.file(m, "memory.usage_in_bytes"))
		s.OOMKills = keyed(r.file(m, "memory.oom_control"), "oom_kill")
		return
	}
	s.MemoryPeak = number(r.file(m, "memory.peak"))
	s.MemoryCurrent = number(r.file(m, "memory.current"))
	events := r.file(m, "memory.events")
	s.oomKills(events)
	s.MemoryLimitHits = keyed(events, "oom")
}

func (r *reader) io(s *Stats, m *member) {
	before := r.err
	if m.version == 1 {
		if content := r.file(m, "blkio.throttle.io_service_bytes_recursive"); !r.missing && r.err == before {
			s.blkio(content)
		}
		return
	}
	if content := r.file(m, "io.stat"); !r.missing && r.err == before {
		s.ioStat(content)
	}
}
