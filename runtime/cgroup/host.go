package cgroup

import (
	"sort"
	"sync"
)

// Mode is how the control groups of a host are mounted.
type Mode string

// The modes. Hybrid has controllers on v1 hierarchies and a v2 tree beside them.
const (
	ModeNone   Mode = "none"
	ModeV1     Mode = "v1"
	ModeV2     Mode = "v2"
	ModeHybrid Mode = "hybrid"
)

// Controllers that this package uses, by their v2 names. cpuacct and freezer
// exist on v1 only; there "io" is called blkio.
const (
	Memory  = "memory"
	Pids    = "pids"
	CPU     = "cpu"
	IO      = "io"
	CPUAcct = "cpuacct"
	Freezer = "freezer"
)

// Controller says whether and where one controller can be used.
type Controller struct {
	// Usable is true when groups with this controller can be made. On v2 it is
	// provisional until Prepare has run: only the attempt shows it.
	Usable bool
	// Version is 1 or 2, 0 when the host has no such controller.
	Version int
	// Parent is the directory in which groups are made. Empty: not usable.
	Parent string
	// Reason says why the controller is not usable, for people. Empty: usable.
	Reason string
}

// Host is what Detect found. Its methods may be called concurrently.
type Host struct {
	// Mode is how control groups are mounted.
	Mode Mode
	// Delegated is true when the v2 cgroup of this process was handed over to it:
	// marked so by systemd, or owned by this user while its parent is not.
	Delegated bool

	mu          sync.Mutex
	controllers map[string]Controller
	trees       []*tree
}

// tree is one mounted hierarchy that groups are made in.
type tree struct {
	version     int
	controllers []string
	// mount is the root directory of the hierarchy.
	mount string
	// own is the cgroup of this process, without our leaf; v2 only.
	own string
	// settled is true when own, and no other place, is where groups belong.
	settled bool
	// parent is the directory in which groups are made.
	parent string
	// pending are v2 controllers that parent does not give to its children yet.
	pending []string
	// spare trees are used only when the kernel has no cgroup.kill.
	spare bool
}

// Controller looks one controller up by its v2 name.
func (h *Host) Controller(name string) Controller {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c, ok := h.controllers[name]; ok {
		return c
	}
	return Controller{Reason: "not a controller that capsule uses"}
}

// Usable is true when at least one hierarchy can hold a group.
func (h *Host) Usable() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.trees) > 0
}

// Missing maps each resource controller that cannot be used (memory, pids,
// cpu, io) to the reason. Empty: everything works.
func (h *Host) Missing() map[string]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	missing := map[string]string{}
	for _, name := range []string{Memory, Pids, CPU, IO} {
		if c := h.controllers[name]; !c.Usable {
			missing[name] = c.Reason
		}
	}
	return missing
}

// Parents lists the directories in which groups are made, sorted.
func (h *Host) Parents() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	parents := make([]string, 0, len(h.trees))
	for _, t := range h.trees {
		parents = append(parents, t.parent)
	}
	sort.Strings(parents)
	return parents
}

func (h *Host) unified() *tree {
	for _, t := range h.trees {
		if t.version == 2 {
			return t
		}
	}
	return nil
}

func (h *Host) refuse(controller, reason string) {
	h.controllers[controller] = Controller{Reason: reason}
}
