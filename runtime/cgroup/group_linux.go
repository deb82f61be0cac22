package cgroup

import (
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec/fault"
)

// Group is the control group of one execution. It owns descriptors until
// Close or Remove. Its methods must not be called concurrently, except Kill
// and Stats.
type Group struct {
	// Confirmed tells for every limit that was asked for whether the kernel
	// has it, read back from the group. Read-only.
	Confirmed map[string]bool

	members []member
	dirFD   int
	tasks   []int
	kept    kept // what Stats reads
}

// member is the group's directory on one hierarchy.
type member struct {
	version     int
	controllers []string
	path        string
}

// Create makes the group capsule-NAME with the limits of r on every hierarchy
// in use. name is 1 to 128 bytes of [A-Za-z0-9._-]. On failure nothing is left.
//
// A limit that this host cannot set is a fault E4001 that names the controller,
// all of them together as a fault.List, unless mayLack answers true for the
// name of the limit ("memory" stands for swap too); nil refuses every lack.
// Other failures are E2002. r may be nil.
func (h *Host) Create(name string, r *specs.LinuxResources, mayLack func(limit string) bool) (*Group, error) {
	if !validName(name) {
		return nil, fault.New(fault.Cgroup, "create cgroup "+name, "the name is not 1 to 128 of [A-Za-z0-9._-]")
	}
	if err := h.Prepare(); err != nil {
		return nil, err
	}
	if mayLack == nil {
		mayLack = func(string) bool { return false }
	}
	h.mu.Lock()
	controllers, trees := h.controllers, h.trees
	h.mu.Unlock()
	asked := wants(r)
	if err := lackingControllers(asked, controllers, mayLack); err != nil {
		return nil, err
	}
	g := &Group{Confirmed: make(map[string]bool, len(asked)), dirFD: -1}
	if err := g.make(trees, name); err != nil {
		g.discard()
		return nil, err
	}
	if err := g.limit(asked, mayLack); err != nil {
		g.discard()
		return nil, err
	}
	g.keep()
	return g, nil
}

func validName(name string) bool {
	if name == "" || len(name) > 128 {
		return false
	}
	for _, c := range []byte(name) {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// lackingControllers reports all limits that no controller serves.
func lackingControllers(asked []want, controllers map[string]Controller, mayLack func(string) bool) error {
	var list fault.List
	for _, w := range asked {
		c := controllers[w.controller]
		if (c.Usable && w.settings != nil && len(w.settings(c.Version)) > 0) || mayLack(degradeName(w.limit)) {
			continue
		}
		reason := c.Reason
		if reason == "" {
			reason = "capsule does not set it"
		}
		list = append(list, unavailable(w, "the limit "+w.limit+" needs the cgroup controller "+w.controller+": "+reason))
	}
	return list.Err()
}

func unavailable(w want, message string) *fault.Fault {
	f := fault.New(fault.LimitUnavailable, "limit "+w.limit, message).WithField(w.field)
	f.Details = map[string]any{"limit": w.limit, "controller": w.controller}
	return f
}

// degradeName: a request speaks of memory and means swap too.
func degradeName(limit string) string {
	if limit == LimitSwap {
		return LimitMemory
	}
	return limit
}

// make makes the directories and opens what a child is attached by.
func (g *Group) make(trees []*tree, name string) error {
	killable := false
	for _, t := range trees {
		if t.spare && killable {
			continue
		}
		path := t.parent + "/" + groupPrefix + name
		if err := unix.Mkdir(path, 0o755); err != nil {
			return fault.Wrap(fault.Cgroup, "mkdir", err).WithPath(path)
		}
		g.members = append(g.members, member{t.version, t.controllers, path})
		if err := g.openAttach(t.version, path); err != nil {
			return err
		}
		killable = killable || (t.version == 2 && hasKill(path))
	}
	return nil
}

// hasKill is true when the group has cgroup.kill, which came with 5.14; an older
// kernel may have it all the same. The first look at a cgroup file costs 13 us
// and the name of the kernel less than one.
func hasKill(path string) bool {
	var u unix.Utsname
	if unix.Uname(&u) == nil && atLeast(unix.ByteSliceToString(u.Release[:]), 5, 14) {
		return true
	}
	return exists(path + "/cgroup.kill")
}

func (g *Group) openAttach(version int, path string) error {
	if version == 2 {
		fd, err := open(path, unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return fault.Wrap(fault.Cgroup, "open", err).WithPath(path)
		}
		g.dirFD = fd
		return nil
	}
	fd, err := open(path+"/tasks", unix.O_WRONLY)
	if err != nil {
		return fault.Wrap(fault.Cgroup, "open", err).WithPath(path + "/tasks")
	}
	g.tasks = append(g.tasks, fd)
	return nil
}

// limit writes every limit and reads it back.
func (g *Group) limit(asked []want, mayLack func(string) bool) error {
	var list fault.List
	var b buffer
	for _, w := range asked {
		m := g.with(w.controller)
		if m == nil || w.settings == nil {
			g.Confirmed[w.limit] = false
			continue
		}
		confirmed, already := true, false
		if before, ok := g.Confirmed[w.limit]; ok {
			already = !before
		}
		for _, s := range w.settings(m.version) {
			ok, err := m.set(&b, s)
			if s.limit == "" {
				// A supporting setting: an older kernel may lack it.
				continue
			}
			if err == unix.ENOENT && s.limit == LimitSwap && !hostSwaps(&b) {
				ok, err = true, nil
			}
			// A disk may have no bounds, and io.max takes none of 1 before some
			// kernel after 6.12: that is a lack, too.
			if err != nil && err != unix.ENOENT && s.limit != LimitIO && !mayLack(degradeName(w.limit)) {
				return fault.Wrap(fault.Cgroup, "write "+s.value+" to", err).WithField(w.field).WithPath(m.path + "/" + s.file)
			}
			confirmed = confirmed && ok && err == nil
		}
		g.Confirmed[w.limit] = confirmed && !already
		if !confirmed && !mayLack(degradeName(w.limit)) {
			list = append(list, unavailable(w, "the kernel did not take the value of "+w.limit+" in "+m.path))
		}
	}
	return list.Err()
}

// set writes a value and reads the same descriptor back.
func (m *member) set(b *buffer, s setting) (bool, error) {
	fd, err := open(m.path+"/"+s.file, unix.O_RDWR)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	if err := writeFD(fd, s.value); err != nil {
		return false, err
	}
	n, err := unix.Pread(fd, b.fixed[:], 0)
	if err != nil {
		return false, err
	}
	content := string(b.fixed[:n])
	if n == len(b.fixed) {
		// io.max of a host with very many disks, which do not fit.
		if _, err = unix.Seek(fd, 0, unix.SEEK_SET); err == nil {
			content, err = b.readFD(fd)
		}
		if err != nil {
			return false, err
		}
	}
	return s.confirms(content, s.value), nil
}

// hostSwaps is true when the host has swap space, or hides whether it has.
func hostSwaps(b *buffer) bool {
	content, err := b.read("/proc/swaps")
	return err != nil || strings.Count(content, "\n") > 1
}

func (g *Group) with(controller string) *member {
	for i := range g.members {
		for _, name := range g.members[i].controllers {
			if name == controller {
				return &g.members[i]
			}
		}
	}
	return nil
}

func (g *Group) v2() *member {
	for i := range g.members {
		if g.members[i].version == 2 {
			return &g.members[i]
		}
	}
	return nil
}

// DirFD is a descriptor (O_PATH) of the group's v2 directory for
// CLONE_INTO_CGROUP, or -1. The group owns it.
func (g *Group) DirFD() int { return g.dirFD }

// TasksFDs are the tasks files of the group's v1 directories, open for
// writing. The child, while it has one thread, writes "0" to each before it
// gives up its privileges. The group owns them.
//
// Never write another process's pid to cgroup.procs instead: after some
// idleness that waits about 10 ms for an RCU grace period.
func (g *Group) TasksFDs() []int { return g.tasks }

// Paths are the group's directories: what SweepPaths needs to take it away
// when its maker died, and what a record of the execution should keep.
func (g *Group) Paths() []string {
	paths := make([]string, len(g.members))
	for i, m := range g.members {
		paths[i] = m.path
	}
	return paths
}

// Close releases the descriptors and leaves the group in place. Once the
// child is attached those for that are of no use, and Stats does without.
func (g *Group) Close() {
	g.kept.close()
	if g.dirFD >= 0 {
		unix.Close(g.dirFD)
		g.dirFD = -1
	}
	for _, fd := range g.tasks {
		unix.Close(fd)
	}
	g.tasks = nil
}

// discard undoes a Create that failed; nothing has been in the group yet.
func (g *Group) discard() {
	g.Close()
	for _, m := range g.members {
		// The failure that led here is the one to report.
		_ = unix.Rmdir(m.path)
	}
	g.members = nil
}
