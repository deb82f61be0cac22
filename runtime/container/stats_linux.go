package container

import (
	"os"

	"github.com/capsule-run/capsule/runtime/container/resources"
)

// Stats is the usage of a container, in the form that runc's callers know.
type Stats struct {
	CPU struct {
		Usage struct {
			Total  uint64 `json:"total"` // nanoseconds
			User   uint64 `json:"user"`
			Kernel uint64 `json:"kernel"`
		} `json:"usage"`
	} `json:"cpu"`
	Memory struct {
		Usage struct {
			Usage uint64 `json:"usage"`
			Max   uint64 `json:"max"`
			Limit uint64 `json:"limit"`
		} `json:"usage"`
	} `json:"memory"`
	Pids struct {
		Current uint64 `json:"current"`
		Limit   uint64 `json:"limit"`
	} `json:"pids"`
	// OOMKills is how often the kernel killed for want of memory.
	OOMKills uint64 `json:"-"`
}

// Usage reads what a container's group has used. Nil: it has none.
func (r *Runtime) Usage(id string) (*resources.Usage, error) {
	c, err := r.Glance(id)
	if err != nil || c.Group == nil {
		return nil, err
	}
	return c.Group.Usage()
}

// OOMEvents is that of a container's group. Nil: it has none, or no memory controller.
func (r *Runtime) OOMEvents(id string) (events *os.File, soon bool, err error) {
	c, err := r.Glance(id)
	if err != nil || c.Group == nil {
		return nil, false, err
	}
	return c.Group.OOMEvents()
}

// OOMKills is that of a container's group.
func (r *Runtime) OOMKills(id string) (uint64, error) {
	c, err := r.Glance(id)
	if err != nil || c.Group == nil {
		return 0, err
	}
	return c.Group.OOMKills()
}

// Stats reads the usage of a container. Nil: it has ended.
func (r *Runtime) Stats(id string) (*Stats, error) {
	c, err := r.Glance(id)
	if err != nil {
		return nil, err
	}
	if c.Group == nil || !c.Process.alive() {
		return nil, nil
	}
	u, err := c.Group.Usage()
	if err != nil {
		return nil, err
	}
	return statsOf(u), nil
}

func statsOf(u *resources.Usage) *Stats {
	s := new(Stats)
	s.CPU.Usage.Total, s.CPU.Usage.User, s.CPU.Usage.Kernel = u.CPU, u.User, u.Kernel
	s.Memory.Usage.Usage, s.Memory.Usage.Max, s.Memory.Usage.Limit = u.Memory, u.MemoryMax, u.MemoryLimit
	s.Pids.Current, s.Pids.Limit = u.Pids, u.PidsLimit
	s.OOMKills = u.OOMKills
	return s
}
