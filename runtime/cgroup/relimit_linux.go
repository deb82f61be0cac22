package cgroup

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec/fault"
)

// Limit replaces the limits of a group of this host, in which nothing runs that
// counts, by those of r. It is false, and nothing is changed, when r leaves out a
// limit that the group has. Errors are those of Create; the group stays.
func (h *Host) Limit(g *Group, r *specs.LinuxResources, mayLack func(limit string) bool) (bool, error) {
	if mayLack == nil {
		mayLack = func(string) bool { return false }
	}
	h.mu.Lock()
	controllers := h.controllers
	h.mu.Unlock()
	asked := wants(r)
	for limit := range g.Confirmed {
		if !slices.ContainsFunc(asked, func(w want) bool { return w.limit == limit }) {
			return false, nil
		}
	}
	if err := lackingControllers(asked, controllers, mayLack); err != nil {
		return true, err
	}
	if err := g.liftMemory(); err != nil {
		return true, err
	}
	clear(g.Confirmed)
	return true, g.limit(asked, mayLack)
}

// liftMemory takes v1's limits on memory away: the one on memory and swap may never
// be below the one on memory, so neither could be raised or lowered first in general.
func (g *Group) liftMemory() error {
	m := g.with(Memory)
	if m == nil || m.version != 1 {
		return nil
	}
	for _, file := range []string{"memory.memsw.limit_in_bytes", "memory.limit_in_bytes"} {
		fd, err := open(m.path+"/"+file, unix.O_WRONLY)
		if err == unix.ENOENT {
			continue // a kernel that does not count swap
		}
		if err == nil {
			err = writeFD(fd, "-1")
			unix.Close(fd)
		}
		if err != nil {
			return fault.Wrap(fault.Cgroup, "write -1 to", err).WithPath(m.path + "/" + file)
		}
	}
	return nil
}

// Whole tells whether the kernel has every limit that was asked for.
func (g *Group) Whole() bool {
	for _, confirmed := range g.Confirmed {
		if !confirmed {
			return false
		}
	}
	return true
}
