package cgroup

import (
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec/fault"
)

// Trace notes how the place for groups is before Prepare, for a caller that
// only tries it. undo puts it back: processes go where they were, and the
// leaf and the pin that were made since go away. It leaves everything as it is
// while anybody has a group there, and when there was nothing to do.
func (h *Host) Trace() (undo func() error) {
	t := h.unified()
	if t == nil || len(t.pending) == 0 {
		return func() error { return nil }
	}
	hadLeaf := exists(t.own + "/" + leafName)
	pinned := map[string]bool{}
	for dir := t.own; len(dir) >= len(t.mount); dir = dir[:strings.LastIndexByte(dir, '/')] {
		pinned[dir] = exists(dir + "/" + pinName)
	}
	var b buffer
	before, _ := b.read(t.own + "/cgroup.subtree_control")
	return func() error {
		var errs []error
		if dir := t.parent; !pinned[dir] && exists(dir+"/"+pinName) && !holdsGroups(dir) {
			errs = append(errs, removed(dir+"/"+pinName))
		}
		if !hadLeaf && exists(t.own+"/"+leafName) {
			errs = append(errs, t.leaveLeaf(before))
		}
		return errors.Join(errs...)
	}
}

// leaveLeaf moves what is in the leaf back and removes it. before is what
// subtree_control held.
func (t *tree) leaveLeaf(before string) error {
	lock, err := open(t.own, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return fault.Wrap(fault.Cgroup, "open the own cgroup", err).WithPath(t.own)
	}
	defer unix.Close(lock)
	if err := flock(lock); err != nil {
		return fault.Wrap(fault.Cgroup, "lock the own cgroup", err).WithPath(t.own)
	}
	lift, err := t.fence()
	if err != nil {
		return err
	}
	err = t.emptyLeaf(before)
	// A fence of permissions keeps us out as well, so the leaf goes after it.
	lift()
	if err != nil || holdsGroups(t.own) {
		return err // an execution that came meanwhile needs the controllers
	}
	return removed(t.own + "/" + leafName)
}

// emptyLeaf takes back the controllers that before did not have, and then moves
// the processes of the leaf to its parent; nothing, where an execution has a
// group. The caller has the lock and the fence.
func (t *tree) emptyLeaf(before string) error {
	if holdsGroups(t.own) {
		return nil
	}
	var b buffer
	now, _ := b.read(t.own + "/cgroup.subtree_control")
	for name := range strings.FieldsSeq(now) {
		if !strings.Contains(" "+strings.TrimSpace(before)+" ", " "+name+" ") {
			if err := write(t.own+"/cgroup.subtree_control", "-"+name); err != nil {
				return fault.Wrap(fault.Cgroup, "disable "+name, err).WithPath(t.own)
			}
		}
	}
	leaf := t.own + "/" + leafName
	for range 20 { // processes that fork meanwhile need another round
		content, err := b.read(leaf + "/cgroup.procs")
		if err != nil || content == "" {
			break
		}
		for _, pid := range pids(content) {
			_ = write(t.own+"/cgroup.procs", strconv.Itoa(pid)) // rmdir tells
		}
	}
	return nil
}

// fence keeps everybody from making groups until lift is called: controllers
// that are taken away would leave a group without its limits.
func (t *tree) fence() (lift func(), err error) {
	var b buffer
	limit, now := t.own+"/cgroup.max.descendants", 0
	bound, _ := b.read(limit)
	stat, _ := b.read(t.own + "/cgroup.stat")
	for line := range strings.Lines(stat) {
		if n, ok := strings.CutPrefix(line, "nr_descendants "); ok {
			now, _ = strconv.Atoi(strings.TrimSpace(n)) // the kernel's own number
		}
	}
	if err := write(limit, strconv.Itoa(now)); err == nil {
		return func() { _ = write(limit, strings.TrimSpace(bound)) }, nil
	}
	// Delegation does not hand that file over, but it does the directory.
	info, err := os.Stat(t.own)
	if err == nil {
		err = os.Chmod(t.own, info.Mode().Perm()&^0o222)
	}
	if err != nil {
		return nil, fault.Wrap(fault.Cgroup, "keep groups out", err).WithPath(t.own)
	}
	return func() { _ = os.Chmod(t.own, info.Mode().Perm()) }, nil
}

// holdsGroups tells whether an execution has its group in dir.
func holdsGroups(dir string) bool {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), groupPrefix) {
			return true
		}
	}
	return err != nil
}

func removed(dir string) error {
	if err := unix.Rmdir(dir); err != nil && err != unix.ENOENT {
		return fault.Wrap(fault.Cgroup, "rmdir", err).WithPath(dir)
	}
	return nil
}
