package cgroup

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/cgroups/v3"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec/fault"
)

const (
	mountpoint = "/sys/fs/cgroup"
	// leafName is where Prepare moves processes that are in the way.
	leafName = "capsule.leaf"
	// pinName is the empty child that keeps controllers enabled.
	pinName = "capsule.pin"
	// groupPrefix marks a directory as a group of ours.
	groupPrefix = "capsule-"
)

// Beside is an environment variable (NAME=VALUE) that makes Detect look at a
// delegated v2 cgroup as at one that is not: groups are made in an ancestor. It is
// for a unit of a systemd that cannot start a new process in the unit's cgroup
// while that passes controllers on (before 254, without DelegateSubgroup).
const Beside = "CAPSULE_CGROUP=beside"

// Detect finds out what this process may do with control groups. It reads
// some files and changes nothing. A host without control groups is no error
// but ModeNone.
func Detect() (*Host, error) {
	mode := ModeNone
	switch cgroups.Mode() {
	case cgroups.Legacy:
		mode = ModeV1
	case cgroups.Hybrid:
		mode = ModeHybrid
	case cgroups.Unified:
		mode = ModeV2
	}
	var b buffer
	self, err := b.read("/proc/self/cgroup")
	if err != nil {
		return nil, fault.Wrap(fault.Cgroup, "read /proc/self/cgroup", err)
	}
	return detect(mountpoint, mode, strings.NewReader(self))
}

// detect looks at hierarchies mounted below mount for a process that is where
// self, in the form of /proc/self/cgroup, says.
func detect(mount string, mode Mode, self io.Reader) (*Host, error) {
	v1, unified, err := cgroups.ParseCgroupFromReaderUnified(self)
	if err != nil {
		return nil, fault.Wrap(fault.Cgroup, "parse /proc/self/cgroup", err)
	}
	h := &Host{Mode: mode, controllers: map[string]Controller{}}
	for _, name := range []string{Memory, Pids, CPU, IO, CPUAcct, Freezer} {
		h.refuse(name, "no cgroup hierarchy with the controller "+name+" is mounted")
	}
	switch mode {
	case ModeV2:
		h.detectV2(mount, unified)
	case ModeHybrid:
		h.detectV1(mount, v1)
		h.detectV2(filepath.Join(mount, "unified"), unified)
	case ModeV1:
		h.detectV1(mount, v1)
	}
	if mode == ModeV1 && !mounted(mount, v1) {
		// What the library calls v1 is everything that is neither v2 nor hybrid.
		h.Mode = ModeNone
	}
	h.spareTrees()
	return h, nil
}

// mounted tells whether any v1 hierarchy of this process can be seen below mount.
func mounted(mount string, own map[string]string) bool {
	for name := range own {
		if exists(filepath.Join(mount, strings.TrimPrefix(name, "name=")) + "/tasks") {
			return true
		}
	}
	return false
}

// detectV1 adds a tree for each v1 hierarchy with a controller that is used.
func (h *Host) detectV1(mount string, own map[string]string) {
	byInode := map[[2]uint64]*tree{}
	for _, name := range []string{Memory, Pids, CPU, CPUAcct, IO, Freezer} {
		file := name
		if name == IO {
			file = "blkio"
		}
		path, ok := own[file]
		if !ok {
			continue
		}
		root := filepath.Join(mount, file)
		parent, inode, reason := place(root, path)
		if reason != "" {
			h.refuse(name, reason)
			continue
		}
		t := byInode[inode]
		if t == nil {
			t = &tree{version: 1, mount: root, parent: parent}
			byInode[inode] = t
			h.trees = append(h.trees, t)
		}
		// Controllers that are mounted together, as cpu,cpuacct often are, are
		// one directory under two names.
		t.controllers = append(t.controllers, name)
		h.controllers[name] = Controller{Usable: true, Version: 1, Parent: t.parent}
	}
}

// place finds the directory of the cgroup path below root and checks that
// groups can be made there.
func place(root, path string) (dir string, inode [2]uint64, reason string) {
	if !strings.HasPrefix(path, "/") || strings.Contains(path+"/", "/../") {
		return "", inode, "this process is outside its cgroup namespace (" + path + ")"
	}
	dir = filepath.Join(root, path)
	var st unix.Stat_t
	err := unix.Stat(dir, &st)
	if err == unix.ENOENT && path != "/" {
		// A container without a cgroup namespace sees its own subtree mounted
		// at root while /proc/self/cgroup tells the path of the whole host.
		dir = filepath.Join(root, strings.TrimPrefix(path, mountedSubtree(root)))
		if err = unix.Stat(dir, &st); err == unix.ENOENT {
			dir = root
			err = unix.Stat(dir, &st)
		}
	}
	if err != nil {
		return "", inode, dir + ": " + err.Error()
	}
	if err := unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK, unix.AT_EACCESS); err != nil {
		return "", inode, dir + " is not writable: " + err.Error()
	}
	return dir, [2]uint64{st.Dev, st.Ino}, ""
}

// mountedSubtree is the root field of mountinfo for the mount at root.
func mountedSubtree(root string) string {
	var b buffer
	content, err := b.read("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(content) {
		if fields := strings.Split(line, " "); len(fields) > 4 && fields[4] == root && fields[3] != "/" {
			return fields[3]
		}
	}
	return ""
}

// detectV2 adds the v2 tree with the controllers that no v1 hierarchy has.
func (h *Host) detectV2(mount, own string) {
	if own == "" {
		return
	}
	own, inLeaf := strings.CutSuffix(own, "/"+leafName)
	if own == "" {
		own = "/"
	}
	dir, _, reason := place(mount, own)
	if reason != "" {
		// On a hybrid host the reason that the v1 hierarchy gave says more.
		for _, name := range []string{Memory, Pids, CPU, IO} {
			if h.Mode == ModeV2 {
				h.refuse(name, reason)
			}
		}
		return
	}
	t := &tree{version: 2, mount: mount, own: dir, parent: dir}
	// First, so that it is the first to have a process and the last to lose it.
	h.trees = append([]*tree{t}, h.trees...)
	if h.serves(Memory, Pids, CPU, IO) {
		// All controllers are on v1; nothing has to be enabled here.
		return
	}
	name, value, _ := strings.Cut(Beside, "=")
	h.Delegated = delegated(dir, mount) && (inLeaf || os.Getenv(name) != value)
	t.settled = h.Delegated || inLeaf || dir == mount
	h.chooseV2(t)
}

// chooseV2 takes the controllers that t has or can get for its children.
func (h *Host) chooseV2(t *tree) {
	var b buffer
	given, _ := b.read(t.parent + "/cgroup.subtree_control")
	given = " " + strings.TrimSpace(given) + " "
	available, root := "", ""
	for _, name := range []string{Memory, Pids, CPU, IO} {
		if h.controllers[name].Usable {
			continue
		}
		if strings.Contains(given, " "+name+" ") {
			h.adopt(t, name)
			continue
		}
		if available == "" {
			available, root = controllersOf(t.parent), controllersOf(t.mount)
		}
		// What the root has but this cgroup has not can be passed down only
		// by somebody who may write to the ancestors.
		if strings.Contains(available, " "+name+" ") ||
			(strings.Contains(root, " "+name+" ") && writable(filepath.Dir(t.parent)+"/cgroup.subtree_control")) {
			h.adopt(t, name)
			t.pending = append(t.pending, name)
			continue
		}
		if h.Mode == ModeHybrid && !strings.Contains(root, " "+name+" ") {
			continue
		}
		h.refuse(name, "the controller "+name+" is not delegated to "+t.parent)
	}
}

func (h *Host) serves(names ...string) bool {
	for _, name := range names {
		if !h.controllers[name].Usable {
			return false
		}
	}
	return true
}

func (h *Host) adopt(t *tree, name string) {
	t.controllers = append(t.controllers, name)
	h.controllers[name] = Controller{Usable: true, Version: 2, Parent: t.parent}
}

// spareTrees: with a v2 tree, CPU time comes from its cpu.stat and killing from
// its cgroup.kill, so the hierarchies that exist for these alone stay unused.
func (h *Host) spareTrees() {
	if h.unified() == nil {
		return
	}
	kept := h.trees[:0]
	for _, t := range h.trees {
		useful := t.version == 2
		for _, name := range t.controllers {
			useful = useful || (name != CPUAcct && name != Freezer)
			t.spare = t.spare || name == Freezer
		}
		t.spare = t.spare && !useful
		if useful || t.spare {
			kept = append(kept, t)
		}
	}
	h.trees = kept
}

// delegated: systemd marks a cgroup that it handed over by an extended
// attribute; for an unprivileged user owning it is enough, at the boundary.
func delegated(dir, mount string) bool {
	var value [8]byte
	for _, name := range []string{"trusted.delegate", "user.delegate"} {
		if n, err := unix.Getxattr(dir, name, value[:]); err == nil && bytes.Equal(value[:n], []byte("1")) {
			return true
		}
	}
	if unix.Geteuid() == 0 || dir == mount {
		return false
	}
	return writable(dir+"/cgroup.procs") && !writable(filepath.Dir(dir)+"/cgroup.procs")
}

func writable(path string) bool {
	return unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK, unix.AT_EACCESS) == nil
}

// controllersOf is the content of cgroup.controllers with a space at each end.
func controllersOf(dir string) string {
	var b buffer
	content, _ := b.read(dir + "/cgroup.controllers")
	return " " + strings.TrimSpace(content) + " "
}
