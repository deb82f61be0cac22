package resources

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec/fault"
)

// Existing is the group at a path of which nothing is recorded: the directories that
// are there.
func Existing(at string) *Group {
	g := &Group{Path: at, Dirs: map[string]string{}, V2: true}
	for _, m := range mounts() {
		g.V2 = g.V2 && m.options == ""
		dir := m.dir + at
		var st unix.Stat_t
		switch {
		case unix.Stat(dir, &st) != nil: // not there
		case m.options == "":
			g.Unified = dir
		default:
			for name := range strings.SplitSeq(m.options, ",") {
				g.Dirs[name] = dir
			}
		}
	}
	return g
}

// directories are all of the group's, each once.
func (g *Group) directories() []string {
	var all []string
	if g.Unified != "" {
		all = append(all, g.Unified)
	}
	for _, name := range sorted(g.Dirs) {
		if !slices.Contains(all, g.Dirs[name]) {
			all = append(all, g.Dirs[name])
		}
	}
	return all
}

// Nowhere tells whether there is no directory of the group, which a partial one may be.
func (g *Group) Nowhere() bool { return len(g.directories()) == 0 }

// identify notes which directories are the group's.
func (g *Group) identify() error {
	g.Inodes = map[string]uint64{}
	for _, dir := range g.directories() {
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil {
			return fault.Wrap(fault.Cgroup, "stat", err).WithPath(dir)
		}
		g.Inodes[dir] = st.Ino
	}
	return nil
}

// Disown gives up the directories that are another's by now: one that nobody is in may be
// removed and made anew for the next container with its path, and that one must not be
// killed with this.
func (g *Group) Disown() {
	var others []string
	for dir, inode := range g.Inodes {
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err == nil && st.Ino != inode {
			others = append(others, dir)
		}
	}
	g.disowned = len(others) > 0
	if g.disowned {
		g.Unit = nil // by its name it is another's too
	}
	if slices.Contains(others, g.Unified) {
		g.Unified = ""
	}
	maps.DeleteFunc(g.Dirs, func(_, dir string) bool { return slices.Contains(others, dir) })
	g.Made = slices.DeleteFunc(g.Made, func(dir string) bool { return slices.Contains(others, dir) })
}

// OpenOf opens the v2 directory in which a process of the group is, the group's own or one
// below it. The caller closes it.
func (g *Group) OpenOf(pid int) (*os.File, error) {
	name := "/proc/" + strconv.Itoa(pid) + "/cgroup"
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fault.Wrap(fault.Cgroup, "read", err).WithPath(name)
	}
	for line := range strings.Lines(string(text)) {
		at, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::")
		if !ok || g.disowned || at != g.Path && !strings.HasPrefix(at, g.Path+"/") {
			continue
		}
		dir, err := os.Open(g.Unified + strings.TrimPrefix(at, g.Path))
		if err != nil {
			return nil, fault.Wrap(fault.Cgroup, "open", err).WithPath(g.Unified)
		}
		return dir, nil
	}
	return nil, fault.New(fault.Cgroup, "enter cgroup", "the container's first process is in none of its groups").WithField("linux.cgroupsPath").WithPath(g.Path)
}

// Processes are the members of the group and of what lies below it.
func (g *Group) Processes() ([]int, error) {
	dir := g.Unified
	if !g.V2 {
		if d, ok := g.Dirs["pids"]; ok {
			dir = d
		} else if all := g.directories(); len(all) > 0 {
			dir = all[len(all)-1]
		}
	}
	pids, err := members(dir)
	if err != nil {
		return nil, fault.Wrap(fault.Cgroup, "list processes", err).WithPath(dir)
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

// members are the processes in a directory and below it. One that is gone has none.
func members(dir string) (pids []int, err error) {
	err = walk(dir, func(d string) error {
		text, err := os.ReadFile(d + "/cgroup.procs")
		for _, word := range strings.Fields(string(text)) {
			pids = append(pids, int(number(word)))
		}
		return err
	})
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return pids, err
}

// signalAtOnce is for how many processes the members are listed once more: a descriptor for
// each is open meanwhile.
const signalAtOnce = 64

// Signal sends a signal to every process that is a member now.
func (g *Group) Signal(sig unix.Signal) error {
	pids, err := g.Processes()
	if err != nil {
		return err
	}
	var all []error
	for some := range slices.Chunk(pids, signalAtOnce) {
		all = append(all, g.signal(some, sig))
	}
	return errors.Join(all...)
}

// signal sends a signal to those processes that are still members once a pidfd holds them.
func (g *Group) signal(pids []int, sig unix.Signal) error {
	held := map[int]int{}
	defer func() {
		for _, fd := range held {
			unix.Close(fd)
		}
	}()
	for _, pid := range pids {
		if fd, err := unix.PidfdOpen(pid, 0); err == nil { // else it is gone
			held[pid] = fd
		}
	}
	still, err := g.Processes()
	if err != nil {
		return err
	}
	var all []error
	for _, pid := range still {
		fd, ok := held[pid]
		if !ok {
			continue
		}
		if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && err != unix.ESRCH {
			all = append(all, fault.Wrap(fault.Cgroup, "signal the group", err).WithPath(g.Path))
		}
	}
	return errors.Join(all...)
}

// walk visits a directory of control groups and those below it, deepest first.
func walk(dir string, visit func(string) error) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := walk(dir+"/"+e.Name(), visit); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	return visit(dir)
}

// Freeze stops or continues every process of the group.
func (g *Group) Freeze(ctx context.Context, on bool) error {
	file, value, done := g.Unified+"/cgroup.freeze", flag(on), ""
	if d, ok := g.Dirs["freezer"]; ok {
		file, value = d+"/freezer.state", "THAWED"
		if on {
			value = "FROZEN"
		}
		done = value
	} else if g.Unified == "" {
		return fault.New(fault.LimitUnavailable, "freeze", "the host has no freezer")
	}
	for {
		if err := write(file, value); err != nil {
			return fault.Wrap(fault.Cgroup, "write "+value+" to", err).WithPath(file)
		}
		now, err := os.ReadFile(file)
		if err != nil || done == "" || strings.TrimSpace(string(now)) == done {
			return err
		}
		// A member that is being forked keeps it FREEZING; writing again helps.
		select {
		case <-ctx.Done():
			return fault.Wrap(fault.Cgroup, "freeze", ctx.Err()).WithPath(file)
		case <-time.After(time.Millisecond):
		}
	}
}

// Frozen tells whether the group is stopped.
func (g *Group) Frozen() bool {
	if d, ok := g.Dirs["freezer"]; ok {
		now, err := os.ReadFile(d + "/freezer.state")
		return err == nil && strings.TrimSpace(string(now)) != "THAWED"
	}
	now, err := os.ReadFile(g.Unified + "/cgroup.freeze")
	return err == nil && strings.TrimSpace(string(now)) == "1"
}

// freezing bounds the wait for members to stop before they are killed.
const freezing = time.Second

// Kill sends SIGKILL to all members, those included that are being forked.
func (g *Group) Kill(ctx context.Context) error {
	if g.Unified != "" {
		if err := write(g.Unified+"/cgroup.kill", "1"); err == nil {
			return g.thaw(ctx)
		}
	}
	for {
		pids, err := g.Processes()
		if err != nil || len(pids) == 0 {
			return err
		}
		// So that none forks meanwhile. A member that cannot be stopped, such as one that
		// waits for a file system, holds the kill up for a moment only.
		short, cancel := context.WithTimeout(ctx, freezing)
		_ = g.Freeze(short, true)
		cancel()
		if err := errors.Join(g.Signal(unix.SIGKILL), g.thaw(ctx)); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fault.New(fault.Cgroup, "kill cgroup", "processes remain").WithPath(g.Path)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// thaw lets what was killed while it was frozen die of it.
func (g *Group) thaw(ctx context.Context) error {
	if !g.Frozen() {
		return nil
	}
	return g.Freeze(ctx, false)
}
