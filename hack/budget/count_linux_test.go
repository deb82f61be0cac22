package budget

import (
	"maps"
	"slices"
)

// count is what the processes of one role did.
type count struct {
	// Starts are processes that were cloned, Execs programs that were executed.
	Starts, Execs int
	// Threads include the first one of each process.
	Threads int
	// Faults are page faults that needed no disk.
	Faults int64
	calls  map[string]int
}

// counts are by role.
type counts map[string]*count

func (c counts) of(role string) *count {
	n := c[role]
	if n == nil {
		n = &count{calls: map[string]int{}}
		c[role] = n
	}
	return n
}

func (c counts) clone() counts {
	d := counts{}
	for role, n := range c {
		m := *n
		m.calls = maps.Clone(n.calls)
		d[role] = &m
	}
	return d
}

// since is what was counted after an earlier snapshot.
func (c counts) since(before counts) counts {
	d := c.clone()
	for role, b := range before {
		n := d.of(role)
		n.Starts -= b.Starts
		n.Execs -= b.Execs
		n.Threads -= b.Threads
		n.Faults -= b.Faults
		for name, k := range b.calls {
			n.calls[name] -= k
		}
	}
	return d
}

// add adds what another count has.
func (c counts) add(more counts) {
	for role, m := range more {
		n := c.of(role)
		n.Starts += m.Starts
		n.Execs += m.Execs
		n.Threads += m.Threads
		n.Faults += m.Faults
		for name, k := range m.calls {
			n.calls[name] += k
		}
	}
}

// scheduling are the calls by which Go's scheduler puts threads to sleep, wakes
// and preempts them, which follow the clock and the load; those with which a
// thread begins and ends, which the number of threads stands for; and those of
// memory management, which follow the collector.
var scheduling = []string{
	"futex", "sched_yield", "nanosleep", "clock_nanosleep", "restart_syscall", "epoll_pwait", "epoll_wait", "getpid", "tgkill", "rt_sigreturn",
	"clone", "clone3", "gettid", "sigaltstack", "rt_sigprocmask", "exit", "set_robust_list", "rseq",
	"mmap", "munmap", "madvise",
}

// scheduled tells whether processes of this role have Go's scheduler in them.
func scheduled(role string) bool { return role != "init" && role != "payload" }

// own is the number of system calls that are the program's own.
func (n *count) own(role string) int {
	sum := 0
	for name, k := range n.calls {
		if !scheduled(role) || !slices.Contains(scheduling, name) {
			sum += k
		}
	}
	return sum
}

// divided is the average of n executions, rounded down: what does not belong to
// each of them is a share of one.
func (c counts) divided(n int) counts {
	d := c.clone()
	for _, k := range d {
		k.Starts, k.Execs, k.Threads, k.Faults = k.Starts/n, k.Execs/n, k.Threads/n, k.Faults/int64(n)
		for name := range k.calls {
			if k.calls[name] /= n; k.calls[name] == 0 {
				delete(k.calls, name)
			}
		}
	}
	return d
}
