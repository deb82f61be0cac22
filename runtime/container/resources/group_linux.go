package resources

import (
	"context"
	"errors"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/container/scope"
	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/spec/fault"
)

const top = "/sys/fs/cgroup"

// Own is the directory, in each hierarchy, for groups whose place is ours to choose. It is
// there while one of them is.
const Own = "/capsule-oci"

// Group is the control group of one container: a directory in each hierarchy of the
// host. It holds no descriptor and can be stored.
type Group struct {
	// Path is the same in every hierarchy.
	Path string `json:"path"`
	// Dirs are the directories of v1, by controller; those of one mount are the same.
	Dirs map[string]string `json:"dirs,omitempty"`
	// Unified is that of v2. Empty: the host has none.
	Unified string `json:"unified,omitempty"`
	// V2 says that the controllers are those of v2.
	V2 bool `json:"v2"`
	// Unit is the scope of systemd whose group it is. Nil: systemd knows nothing of it.
	Unit *scope.Unit `json:"unit,omitempty"`
	// Made are the directories that did not exist, parents first.
	Made []string `json:"made,omitempty"`
	// Inodes tell the group's directories from later ones of the same name.
	Inodes map[string]uint64 `json:"inodes,omitempty"`
	// Partial: the caller has no privilege on the host, so there are directories only where it
	// may make them, and devices are not judged: in its user namespace nobody makes a node.
	Partial bool `json:"partial,omitempty"`
	// disowned says that not all of it is left.
	disowned bool
}

// Hierarchies lists what a mount of type cgroup shows to the container: the v1
// hierarchies, or nothing where the host has v2 alone. The directory is the group's, or
// where it has none the caller's own, in which the container's processes are then.
func (g *Group) Hierarchies() []plan.Hierarchy {
	var all []plan.Hierarchy
	for _, m := range mounts() {
		if (m.options == "") != g.V2 {
			continue
		}
		dir := g.Unified
		if !g.V2 {
			dir = g.Dirs[m.key()]
		}
		if dir == "" {
			dir = m.callers()
		}
		switch {
		case dir == "": // the caller is in a group that its mount does not show
		case g.V2:
			return []plan.Hierarchy{{Dir: dir}}
		default:
			all = append(all, plan.Hierarchy{Name: m.name, Options: m.options, Dir: dir})
		}
	}
	return all
}

// mount is a mounted hierarchy. No options: v2. root is the group that is mounted.
type mount struct{ name, dir, options, root string }

// key is the controller, or the name, that tells a v1 hierarchy from the others.
func (m mount) key() string { return m.options[strings.LastIndexByte(m.options, ',')+1:] }

// callers is the directory of the group in which this process is, or "".
func (m mount) callers() string {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		// cgroups(7): a number, the controllers and the path. v2 has no controllers there.
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 || m.options == "" && f[1] != "" || m.options != "" && !slices.Contains(strings.Split(f[1], ","), m.key()) {
			continue
		}
		below, ok := strings.CutPrefix(f[2], strings.TrimSuffix(m.root, "/"))
		dir := path.Join(m.dir, below)
		if st, err := os.Stat(dir); ok && err == nil && st.IsDir() {
			return dir
		}
	}
	return ""
}

func mounts() []mount {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var all []mount
	for line := range strings.Lines(string(text)) {
		// proc_pid_mountinfo(5): the file system's type, source and options follow a dash.
		head, tail, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		left, right := strings.Split(head, " "), strings.Split(tail, " ")
		if !ok || len(left) < 5 || len(right) < 3 || left[4] != top && path.Dir(left[4]) != top {
			continue
		}
		switch right[0] {
		case "cgroup2":
			all = append(all, mount{dir: left[4], root: left[3]})
		case "cgroup":
			var keep []string
			for word := range strings.SplitSeq(right[2], ",") {
				if strings.HasPrefix(word, "name=") {
					keep = append(keep, "none", word)
				} else if word != "rw" && word != "ro" && word != "xattr" && !strings.HasPrefix(word, "release_agent=") && word != "clone_children" {
					keep = append(keep, word)
				}
			}
			all = append(all, mount{name: path.Base(left[4]), dir: left[4], options: strings.Join(keep, ","), root: left[3]})
		}
	}
	return all
}

// Make makes the group at a path, which is absolute and clean, and sets what r asks
// for. On failure nothing of it is left.
func Make(at string, r *specs.LinuxResources) (*Group, error) {
	if !path.IsAbs(at) || path.Clean(at) != at || at == "/" {
		return nil, fault.New(fault.InvalidBundle, "make cgroup", "is not a clean path below the root").WithField("linux.cgroupsPath").WithPath(at)
	}
	return (&Group{Path: at}).make(r)
}

// MakePartial is Make for a caller that may be without privilege on the host. Hierarchies in which it
// may make no group are left out; to set something there is E4001.
func MakePartial(at string, r *specs.LinuxResources) (*Group, error) {
	return (&Group{Path: at, Partial: true}).make(r)
}

// MakeScope makes the group as a scope of systemd, which needs a process for that: pid is
// in the group then, and may leave it once another is there.
func MakeScope(ctx context.Context, u scope.Unit, pid int, r *specs.LinuxResources) (*Group, error) {
	v2 := unified(mounts())
	at, err := scope.Start(ctx, u, pid, properties(settings(r, v2), v2))
	if err != nil {
		return nil, err
	}
	return (&Group{Path: at, Unit: &u}).make(r)
}

// unified tells whether the controllers are those of v2.
func unified(all []mount) bool {
	return !slices.ContainsFunc(all, func(m mount) bool { return m.options != "" })
}

// make makes the directories and sets what r asks for.
func (g *Group) make(r *specs.LinuxResources) (*Group, error) {
	all := mounts()
	g.Dirs, g.V2 = map[string]string{}, unified(all)
	if len(all) == 0 {
		return nil, fault.New(fault.Cgroup, "make cgroup", "no control groups are mounted below "+top).WithField("linux.cgroupsPath")
	}
	for _, m := range all {
		err := g.makeDirs(m)
		for tries := 0; errors.Is(err, unix.ENOENT) && tries < 100; tries++ {
			err = g.makeDirs(m) // the last container of a directory took it away meanwhile
		}
		if g.Partial && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EROFS)) {
			continue
		}
		if err != nil {
			return nil, errors.Join(err, g.Remove(context.Background()))
		}
	}
	err := g.identify()
	if err == nil {
		err = g.set(settings(r, g.V2))
	}
	if err == nil && r != nil {
		err = g.setDevices(r.Devices)
	} else if err == nil {
		err = g.setDevices(nil)
	}
	if err != nil {
		return nil, errors.Join(err, g.Remove(context.Background()))
	}
	return g, nil
}

// makeDirs makes the directories of one hierarchy, each with what it needs to pass
// controllers on.
func (g *Group) makeDirs(m mount) error {
	dir := m.dir
	for part := range strings.SplitSeq(strings.Trim(g.Path, "/"), "/") {
		if m.options == "" && g.V2 && g.Unit == nil { // systemd's part otherwise
			passOn(dir)
		}
		parent := dir
		dir += "/" + part
		own := dir == m.dir+g.Path && g.Unit == nil
		if own {
			// What another container left has its limits, and kernels that kill who is cloned
			// into a group that was killed once (cgroup.kill) exist. EBUSY: it is in use.
			_ = unix.Rmdir(dir)
		}
		err := unix.Mkdir(dir, 0o755)
		if err == nil {
			g.Made = append(g.Made, dir)
		} else if err == unix.EEXIST && own {
			// Deleting the container kills everything in its group.
			if pids, err := members(dir); err != nil || len(pids) > 0 {
				return fault.New(fault.Cgroup, "make cgroup", "has processes already").WithField("linux.cgroupsPath").WithPath(dir).
					WithHint("Give every container a cgroupsPath of its own.")
			}
		} else if err != unix.EEXIST {
			return fault.Wrap(fault.Cgroup, "mkdir", err).WithField("linux.cgroupsPath").WithPath(dir)
		}
		if slices.Contains(strings.Split(m.options, ","), "cpuset") {
			if err := inherit(parent, dir); err != nil {
				return err
			}
		}
	}
	if m.options == "" {
		g.Unified = dir
		return nil
	}
	for name := range strings.SplitSeq(m.options, ",") {
		g.Dirs[name] = dir
	}
	return nil
}

// passOn gives every controller of a v2 directory to its children. One that cannot be
// given is missed by the setting that needs it.
func passOn(dir string) {
	names, _ := os.ReadFile(dir + "/cgroup.controllers")
	for _, name := range strings.Fields(string(names)) {
		_ = write(dir+"/cgroup.subtree_control", "+"+name)
	}
}

// inherit fills the CPUs and memory nodes of a new v1 directory, without which no
// process can be in it.
func inherit(parent, dir string) error {
	for _, file := range []string{"/cpuset.cpus", "/cpuset.mems"} {
		now, err := os.ReadFile(dir + file)
		if err == nil && strings.TrimSpace(string(now)) != "" {
			continue
		}
		above, err := os.ReadFile(parent + file)
		if err == nil {
			err = write(dir+file, strings.TrimSpace(string(above)))
		}
		if err != nil {
			return fault.Wrap(fault.Cgroup, "inherit cpuset", err).WithField("linux.cgroupsPath").WithPath(dir + file)
		}
	}
	return nil
}

// answer bounds the wait for systemd.
const answer = time.Minute

// Set writes what r asks for, devices left out. It tells of all that cannot be set at once.
func (g *Group) Set(r *specs.LinuxResources) error {
	list := settings(r, g.V2)
	if g.Unit != nil {
		ctx, cancel := context.WithTimeout(context.Background(), answer)
		defer cancel()
		if err := scope.Set(ctx, *g.Unit, properties(list, g.V2)); err != nil {
			return err
		}
	}
	return g.set(list)
}

func (g *Group) set(list []setting) error {
	var all fault.List
	for _, s := range g.order(list) {
		dir := g.Dirs[s.controller]
		if g.V2 {
			dir = g.Unified
		}
		lacks := func(why string) {
			all = append(all, fault.New(fault.LimitUnavailable, "set "+s.field, why).WithField(s.field))
		}
		switch {
		case dir == "":
			lacks("the host has no cgroup hierarchy with the controller " + s.controller)
			continue
		case s.file == "":
			lacks("the control groups of this host have no such setting")
			continue
		}
		err := write(dir+"/"+s.file, s.value)
		if errors.Is(err, unix.ENOENT) && s.other != "" {
			value := s.value
			if s.other == "io.weight" {
				value = unsigned(1 + (number(s.value)-10)*9999/990)
			}
			err = write(dir+"/"+s.other, value)
		}
		if err == nil && s.file == "memory.kmem.limit_in_bytes" {
			// Kernels from 5.16 on take any value and do nothing.
			if now, _ := os.ReadFile(dir + "/" + s.file); number(strings.TrimSpace(string(now))) > number(s.value)+1<<16 {
				err = unix.ENOENT
			}
		}
		if errors.Is(err, unix.ENOENT) {
			lacks("the kernel has no " + s.file + " in " + dir)
		} else if err != nil {
			all = append(all, fault.Wrap(fault.Cgroup, "write "+s.value+" to", err).WithField(s.field).WithPath(dir+"/"+s.file))
		}
	}
	return all.Err()
}

func number(s string) (n uint64) {
	for _, c := range s {
		n = n*10 + uint64(c-'0')
	}
	return n
}

// order puts a larger limit of memory and swap together before that of memory alone,
// which v1 demands of it never to exceed.
func (g *Group) order(list []setting) []setting {
	if g.V2 {
		return list
	}
	limit := slices.IndexFunc(list, func(s setting) bool { return s.file == "memory.limit_in_bytes" })
	swap := slices.IndexFunc(list, func(s setting) bool { return s.file == "memory.memsw.limit_in_bytes" })
	if limit < 0 || swap < 0 {
		return list
	}
	now, err := os.ReadFile(g.Dirs["memory"] + "/memory.memsw.limit_in_bytes")
	if text := strings.TrimSpace(string(now)); err == nil && (strings.HasPrefix(list[limit].value, "-") || number(text) < number(list[limit].value)) {
		list[limit], list[swap] = list[swap], list[limit]
	}
	return list
}

// setDevices makes the group judge the use of devices.
func (g *Group) setDevices(asked []specs.LinuxDeviceCgroup) error {
	if err := checkRules(asked); err != nil || g.Partial {
		return err
	}
	all := rules(asked)
	if g.V2 {
		return attach(g.Unified, filter(all))
	}
	dir := g.Dirs["devices"]
	if dir == "" {
		return fault.New(fault.LimitUnavailable, "set devices", "the host has no cgroup hierarchy with the controller devices").WithField("linux.resources.devices")
	}
	for _, d := range all {
		file := dir + "/devices.deny"
		if d.Allow {
			file = dir + "/devices.allow"
		}
		for _, line := range lines(d) {
			if err := write(file, line); err != nil {
				return fault.Wrap(fault.Cgroup, "write "+line+" to", err).WithField("linux.resources.devices").WithPath(file)
			}
		}
	}
	return nil
}

// Open gives what a process is put into the group by: the directory of v2 for
// clone3, -1 where there is none, and the tasks files of v1. The caller closes them.
func (g *Group) Open() (dir *os.File, tasks []*os.File, err error) {
	if g.disowned {
		return nil, nil, fault.New(fault.Cgroup, "enter cgroup", "it was taken away, and another is in its place").WithField("linux.cgroupsPath").WithPath(g.Path)
	}
	done := map[string]bool{}
	for _, name := range sorted(g.Dirs) {
		if d := g.Dirs[name]; !done[d] {
			done[d] = true
			f, err := os.OpenFile(d+"/tasks", os.O_WRONLY, 0)
			if err != nil {
				return nil, tasks, fault.Wrap(fault.Cgroup, "open", err).WithPath(d)
			}
			tasks = append(tasks, f)
		}
	}
	if g.Unified != "" {
		if dir, err = os.Open(g.Unified); err != nil {
			return nil, tasks, fault.Wrap(fault.Cgroup, "open", err).WithPath(g.Unified)
		}
	}
	return dir, tasks, nil
}

// Remove takes the group away, and of its parents those that Make made and that are
// empty. ctx bounds the wait for the last processes to leave.
func (g *Group) Remove(ctx context.Context) error {
	var all []error
	if g.Unit != nil {
		if _, ok := ctx.Deadline(); !ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, answer)
			defer cancel()
		}
		all = append(all, scope.Stop(ctx, *g.Unit))
	}
	for _, dir := range g.directories() {
		for {
			err := walk(dir, func(d string) error { return unix.Rmdir(d) })
			if err == nil || errors.Is(err, os.ErrNotExist) {
				break
			}
			if !errors.Is(err, unix.EBUSY) || ctx.Done() == nil {
				all = append(all, fault.Wrap(fault.Cgroup, "rmdir", err).WithPath(dir))
				break
			}
			select {
			case <-ctx.Done():
				all = append(all, fault.Wrap(fault.Cgroup, "rmdir", err).WithPath(dir))
				return errors.Join(all...)
			case <-time.After(2 * time.Millisecond):
			}
		}
	}
	for _, dir := range slices.Backward(g.Made) {
		_ = unix.Rmdir(dir) // another container may be in it
	}
	for _, dir := range g.directories() {
		leaveOwn(g.Path, dir)
	}
	return errors.Join(all...)
}

// leaveOwn takes away the parents of a directory that are ours.
func leaveOwn(group, dir string) {
	if !strings.HasPrefix(group, Own+"/") {
		return
	}
	for at := path.Dir(dir); strings.HasSuffix(at, Own) || strings.Contains(at, Own+"/"); at = path.Dir(at) {
		_ = unix.Rmdir(at) // another container may be in it
	}
}

// Sweep takes away the directories at a path that a Make which was killed may have left:
// they are empty, and one that is not is another's.
func Sweep(at string) {
	for _, m := range mounts() {
		_ = unix.Rmdir(m.dir + at) // there may be none
		leaveOwn(at, m.dir+at)
	}
}

// write gives a value to a file of a control group in one call.
func write(file, value string) error {
	fd, err := unix.Open(file, unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(value))
	return err
}
