package task

import (
	"time"

	"github.com/capsule-run/capsule/runtime/container/resources"
	"github.com/capsule-run/capsule/runtime/wire"
)

func (s *Service) stats(m wire.Message) (wire.Message, error) {
	p, err := s.find(m.String(1), "")
	if err != nil {
		return nil, err
	}
	u, err := p.task.rt.Usage(p.task.id)
	if err != nil {
		return nil, err
	}
	if u == nil {
		return nil, wrong(wire.NotFound, "the container has no control group")
	}
	if u.V2 {
		return wire.Message(nil).PutAny(1, "io.containerd.cgroups.v2.Metrics", metricsV2(u)), nil
	}
	return wire.Message(nil).PutAny(1, "io.containerd.cgroups.v1.Metrics", metricsV1(u)), nil
}

// memoryV1 are the fields of MemoryStat in cgroup1/stats/metrics.proto from 1 on.
var memoryV1 = []string{"cache", "rss", "rss_huge", "mapped_file", "dirty", "writeback", "pgpgin", "pgpgout", "pgfault", "pgmajfault",
	"inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable", "hierarchical_memory_limit", "hierarchical_memsw_limit",
	"total_cache", "total_rss", "total_rss_huge", "total_mapped_file", "total_dirty", "total_writeback", "total_pgpgin", "total_pgpgout",
	"total_pgfault", "total_pgmajfault", "total_inactive_anon", "total_active_anon", "total_inactive_file", "total_active_file", "total_unevictable"}

// memoryV2 are those of cgroup2/stats/metrics.proto.
var memoryV2 = []string{"anon", "file", "kernel_stack", "slab", "sock", "shmem", "file_mapped", "file_dirty", "file_writeback", "anon_thp",
	"inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable", "slab_reclaimable", "slab_unreclaimable", "pgfault",
	"pgmajfault", "workingset_refault", "workingset_activate", "workingset_nodereclaim", "pgrefill", "pgscan", "pgsteal", "pgactivate",
	"pgdeactivate", "pglazyfree", "pglazyfreed", "thp_fault_alloc", "thp_collapse_alloc"}

func memory(u *resources.Usage, names []string) (m wire.Message) {
	for i, name := range names {
		m = m.PutUint(i+1, u.MemoryStat[name])
	}
	return m
}

// pidsOf is PidsStat, which has zero for no limit.
func pidsOf(u *resources.Usage) wire.Message {
	limit := u.PidsLimit
	if limit == 1<<64-1 {
		limit = 0
	}
	return wire.Message(nil).PutUint(1, u.Pids).PutUint(2, limit)
}

func metricsV1(u *resources.Usage) wire.Message {
	usage := wire.Message(nil).PutUint(1, u.CPU).PutUint(2, u.Kernel).PutUint(3, u.User)
	throttle := wire.Message(nil).PutUint(1, u.Throttle.Periods).PutUint(2, u.Throttle.Throttled).PutUint(3, u.Throttle.Time)
	entry := wire.Message(nil).PutUint(1, u.MemoryLimit).PutUint(2, u.Memory).PutUint(3, u.MemoryMax)
	return wire.Message(nil).Put(2, pidsOf(u)).Put(3, wire.Message(nil).Put(1, usage).Put(2, throttle)).
		Put(4, memory(u, memoryV1).Put(33, entry)).Put(9, wire.Message(nil).PutUint(3, u.OOMKills))
}

func metricsV2(u *resources.Usage) wire.Message {
	cpu := wire.Message(nil).PutUint(1, u.CPU/1000).PutUint(2, u.User/1000).PutUint(3, u.Kernel/1000).
		PutUint(4, u.Throttle.Periods).PutUint(5, u.Throttle.Throttled).PutUint(6, u.Throttle.Time/1000)
	m := memory(u, memoryV2).PutUint(32, u.Memory).PutUint(33, u.MemoryLimit).PutUint(34, u.Swap).PutUint(35, u.SwapLimit).PutUint(36, u.MemoryMax)
	return wire.Message(nil).Put(1, pidsOf(u)).Put(2, cpu).Put(4, m).Put(8, wire.Message(nil).PutUint(5, u.OOMKills))
}

// tellOOM tells that the kernel killed a process of the container for want of memory, if it
// has since it was told last. False: it has not.
func (s *Service) tellOOM(t *task) bool {
	t.killed.Lock()
	defer t.killed.Unlock()
	kills, err := t.rt.OOMKills(t.id)
	if err != nil || kills <= t.kills {
		return false
	}
	t.kills = kills
	s.events.publish("/tasks/oom", "TaskOOM", wire.Message(nil).PutString(1, t.id))
	return true
}

// countTime bounds the wait for the count of a kill of which v1 tells before it chooses.
const countTime = time.Second

// watchOOM tells of kills as they happen, until the returned function is called. A
// container that cannot be watched is looked at when it ends.
func (s *Service) watchOOM(t *task) (stop func()) {
	events, soon, err := t.rt.OOMEvents(t.id)
	if err != nil {
		s.Log(err)
	}
	if events == nil {
		return func() {}
	}
	go func() {
		buf := make([]byte, 512)
		for {
			if _, err := events.Read(buf); err != nil {
				return
			}
			for late := time.Now().Add(countTime); !s.tellOOM(t) && soon && time.Now().Before(late); {
				time.Sleep(time.Millisecond) // the count sends no event
			}
		}
	}()
	return func() { _ = events.Close() } // nothing is written to it
}
