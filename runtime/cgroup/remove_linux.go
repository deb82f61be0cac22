package cgroup

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec/fault"
)

// Remove closes the group's descriptors and removes its directories. Processes
// that are on their way out are waited for until ctx is done; then, and when
// somebody lives on, the fault is E2002 with EBUSY. It kills nobody. A second call,
// or one after somebody else removed the group, does nothing.
func (g *Group) Remove(ctx context.Context) error {
	g.Close()
	var errs []error
	for len(g.members) > 0 {
		m := g.members[len(g.members)-1]
		if err := remove(ctx, m.path); err != nil {
			errs = append(errs, err)
			break
		}
		g.members = g.members[:len(g.members)-1]
	}
	return errors.Join(errs...)
}

// End removes the group, after it has killed what is in it. ctx bounds the wait for
// that. Where nothing is left, which the kernel tells when it removes the group or
// does not, nothing is looked for.
func (g *Group) End(ctx context.Context) error {
	if g.removeVacant() {
		return nil
	}
	return errors.Join(g.Kill(), g.Remove(ctx))
}

// removeVacant removes the group; false: something is in it, or below it.
func (g *Group) removeVacant() bool {
	g.Close()
	for len(g.members) > 0 {
		last := len(g.members) - 1
		if err := unix.Rmdir(g.members[last].path); err != nil && err != unix.ENOENT {
			return false
		}
		g.members = g.members[:last]
	}
	return true
}

func remove(ctx context.Context, path string) error {
	for round := 0; ; round++ {
		err := unix.Rmdir(path)
		switch {
		case err == nil || err == unix.ENOENT:
			return nil
		case err != unix.EBUSY && err != unix.ENOTEMPTY && err != unix.EINTR:
			return fault.Wrap(fault.Cgroup, "rmdir", err).WithPath(path)
		}
		// Groups inside ours come from a payload that was given a cgroup tree.
		// They go first; one that still has a process fails here and is retried.
		_ = walk(path, func(dir string) error {
			if dir != path {
				_ = unix.Rmdir(dir)
			}
			return nil
		})
		if pause(ctx, round) != nil {
			return fault.Wrap(fault.Cgroup, "rmdir", err).WithPath(path).
				WithHint("Processes of the execution are still there: kill the group first.")
		}
	}
}

// walk calls visit for dir and everything below it, the deepest first.
// Directories that vanish meanwhile are left out.
func walk(dir string, visit func(dir string) error) error {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return nil
	}
	// A cgroup without children has two links: reading some fifty names to
	// learn that is spared.
	if st.Nlink > 2 {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
			return err
		}
		for _, entry := range entries {
			if entry.IsDir() {
				if err := walk(filepath.Join(dir, entry.Name()), visit); err != nil {
					return err
				}
			}
		}
	}
	return visit(dir)
}

func exists(path string) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil
}

// Names lists the groups of ours that exist where this host's groups are made.
func (h *Host) Names() []string {
	var names []string
	for _, dir := range h.places() {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, entry := range entries {
			if name, ok := strings.CutPrefix(entry.Name(), groupPrefix); ok && entry.IsDir() {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// places are the directories that groups may be in: the parents, and on v2 the
// ancestors that Prepare may have chosen in another process.
func (h *Host) places() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var dirs []string
	for _, t := range h.trees {
		dirs = append(dirs, t.parent)
		if t.version == 2 {
			for dir := t.own; strings.HasPrefix(dir, t.mount); dir = filepath.Dir(dir) {
				dirs = append(dirs, dir)
			}
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// Sweep kills and removes the group of that name, which a dead shim left,
// wherever this host's groups are made. That there is none is no error. ctx
// bounds the wait for the processes to end.
func Sweep(ctx context.Context, h *Host, name string) error {
	if !validName(name) {
		return fault.New(fault.Cgroup, "sweep cgroup "+name, "the name is not 1 to 128 of [A-Za-z0-9._-]")
	}
	var paths []string
	for _, dir := range h.places() {
		paths = append(paths, dir+"/"+groupPrefix+name)
	}
	return SweepPaths(ctx, paths)
}

// SweepPaths does the same for the directories that Group.Paths gave, from
// another process at another time. Paths that are no longer there are left
// out; one that is not a group of ours is refused before anything is done.
func SweepPaths(ctx context.Context, paths []string) error {
	g := &Group{dirFD: -1}
	for _, path := range paths {
		if filepath.Clean(path) != path || !strings.HasPrefix(path, mountpoint+"/") ||
			!strings.HasPrefix(filepath.Base(path), groupPrefix) {
			return fault.New(fault.Cgroup, "sweep cgroup", "not a group of capsule").WithPath(path)
		}
		var st unix.Statfs_t
		err := unix.Statfs(path, &st)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return fault.Wrap(fault.Cgroup, "statfs", err).WithPath(path)
		}
		m := member{version: 1, path: path}
		switch st.Type {
		case unix.CGROUP2_SUPER_MAGIC:
			m.version = 2
		case unix.CGROUP_SUPER_MAGIC:
			if exists(path + "/freezer.state") {
				m.controllers = []string{Freezer}
			}
		default:
			return fault.New(fault.Cgroup, "sweep cgroup", "not on a cgroup file system").WithPath(path)
		}
		g.members = append(g.members, m)
	}
	if len(g.members) == 0 {
		return nil
	}
	if err := g.Kill(); err != nil {
		return err
	}
	if err := g.WaitEmpty(ctx); err != nil {
		return fault.Wrap(fault.Cgroup, "wait for the end of", err).WithPath(g.members[0].path)
	}
	return g.Remove(ctx)
}
