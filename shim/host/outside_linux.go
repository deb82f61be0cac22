package host

import (
	"errors"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/shim/bundle"
	"github.com/capsule-run/capsule/spec/fault"
)

// Outside is what ProbeBundle found.
type Outside struct {
	// Rootless, TimeNamespace and CgroupNamespace are as in bundle.Host.
	Rootless, TimeNamespace, CgroupNamespace bool
	// Root is the canonical root of the bundle; empty: it comes out of an annotation.
	Root string
	// RootIDMap says that the root can be idmapped, and Binds the same of each mount
	// by its index.
	RootIDMap bool
	Binds     map[int]bool
	// Hierarchies are for plan.Facts.
	Hierarchies []plan.Hierarchy
	// Warnings are sentences for the response.
	Warnings []string
}

// ProbeBundle resolves the root and the bind sources of a bundle in dir, writes
// their canonical paths into s and applies policy to them, as Probe does to those
// of a request. What capsule itself shows of the host may be shown by a bundle,
// read-only. All problems come at once as a fault.List.
func ProbeBundle(s *specs.Spec, dir string, opt Options) (*Outside, error) {
	p := prober{opt: opt, facts: new(Facts), policy: policyOf(opt.Policy)}
	if err := p.namespaces(); err != nil {
		return nil, err
	}
	h := &p.facts.Host
	o := &Outside{Rootless: h.Rootless, TimeNamespace: h.TimeNamespace, CgroupNamespace: h.CgroupNamespace, Binds: map[int]bool{}}
	if opt.StateDir != "" {
		state, err := canonical(opt.StateDir)
		if err != nil {
			return nil, fault.Wrap(fault.IO, "open state directory", err).WithPath(opt.StateDir)
		}
		p.policy.state = state
	}
	defer p.idMapping()()
	if s.Root != nil && !bundle.Own(s) {
		p.bundleRoot(s, dir, o)
	}
	for i := range s.Mounts {
		if m := &s.Mounts[i]; bundle.IsBind(m) {
			p.bundleBind(m, i, dir, o)
		} else if m.Type == "cgroup" && o.Hierarchies == nil {
			o.Hierarchies = hierarchies()
		}
	}
	o.Warnings = p.facts.Warnings
	return o, p.faults.Err()
}

func (p *prober) bundleRoot(s *specs.Spec, dir string, o *Outside) {
	const field = "root.path"
	src, f := p.resolve(field, bundle.RootPath(s, dir), useRootfs)
	if f != nil {
		p.refuse(f)
		return
	}
	defer unix.Close(src.fd)
	if kindOf(src.stat.Mode) != bundle.Directory {
		p.refuse(fault.New(fault.InvalidBundle, "", "is not a directory").WithField(field).WithPath(src.path))
		return
	}
	o.Root, s.Root.Path = src.path, src.path
	if o.Rootless {
		return
	}
	err := p.idmap.try(src.fd)
	o.RootIDMap = err == nil
	if err != nil && !slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace }) {
		p.facts.Warnings = append(p.facts.Warnings, "The files of "+src.path+" belong to nobody inside: its file system cannot be idmapped ("+err.Error()+").")
	}
}

func (p *prober) bundleBind(m *specs.Mount, i int, dir string, o *Outside) {
	field := "mounts[" + strconv.Itoa(i) + "].source"
	if !path.IsAbs(m.Source) {
		m.Source = path.Join(dir, m.Source)
	}
	if shown(m) {
		return
	}
	u := useWritable
	if readonlyBind(m) {
		u = useReadable
	}
	src, f := p.resolve(field, m.Source, u)
	if f != nil {
		p.refuse(f)
		return
	}
	defer unix.Close(src.fd)
	m.Source = src.path
	o.Binds[i] = !o.Rootless && p.mappable(&src) == nil
}

// shown says whether a mount is one that Build makes of the host's own directories.
func shown(m *specs.Mount) bool {
	if !readonlyBind(m) || m.Source != m.Destination {
		return false
	}
	is := func(e bundle.Entry) bool { return e.Path == m.Source && e.Kind != bundle.Symlink }
	return slices.ContainsFunc(systemEntries(), is) || slices.ContainsFunc(etcEntries(), is)
}

func readonlyBind(m *specs.Mount) bool {
	return (slices.Contains(m.Options, "ro") || slices.Contains(m.Options, "rro")) &&
		!slices.Contains(m.Options, "rw") && !slices.Contains(m.Options, "rrw")
}

// hierarchies lists the v1 hierarchies below /sys/fs/cgroup when that is not v2
// itself. Where there are both, a mount of type cgroup shows those of v1 alone, as
// under runc and crun.
func hierarchies() []plan.Hierarchy {
	const top = "/sys/fs/cgroup"
	var st unix.Statfs_t
	if unix.Statfs(top, &st) == nil && int64(st.Type) == unix.CGROUP2_SUPER_MAGIC {
		return nil
	}
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var all []plan.Hierarchy
	for line := range strings.Lines(string(text)) {
		// proc_pid_mountinfo(5): the file system's type, source and options follow a dash.
		head, tail, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		left, right := strings.Split(head, " "), strings.Split(tail, " ")
		if !ok || len(left) < 5 || len(right) < 3 || right[0] != "cgroup" {
			continue
		}
		name, below := strings.CutPrefix(left[4], top+"/")
		if !below || strings.Contains(name, "/") {
			continue
		}
		all = append(all, plan.Hierarchy{Name: name, Options: controllersOf(right[2])})
	}
	return all
}

// controllersOf leaves of the options of a v1 mount what says which hierarchy it is.
func controllersOf(options string) string {
	var keep []string
	for o := range strings.SplitSeq(options, ",") {
		switch {
		case o == "rw", o == "ro", strings.HasPrefix(o, "release_agent="), o == "clone_children", o == "xattr", o == "noprefix", o == "cpuset_v2_mode":
		case strings.HasPrefix(o, "name="):
			keep = append(keep, "none", o)
		default:
			keep = append(keep, o)
		}
	}
	return strings.Join(keep, ",")
}

// BundleKinds is Kinds for a bundle with its root on disk: masked and read-only
// paths that lie on none of the kernel's file systems are looked up in the root.
func BundleKinds(s *specs.Spec, root string) map[string]plan.Kind {
	kinds := Kinds(s)
	if s.Linux == nil || root == "" {
		return kinds
	}
	fd, err := openPath(root, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return kinds // the launch tells
	}
	defer unix.Close(fd)
	for _, list := range [...][]string{s.Linux.MaskedPaths, s.Linux.ReadonlyPaths} {
		for _, p := range list {
			switch m := mountOver(s, p); {
			case m == nil:
				kinds[p] = kindBelow(fd, p)
			case m.Type == "proc", m.Type == "sysfs":
			case bundle.IsBind(m):
				kinds[p] = KindAt(path.Join(m.Source, strings.TrimPrefix(p, m.Destination)))
			default:
				kinds[p] = plan.KindMissing
			}
		}
	}
	return kinds
}

// mountOver is the mount that a path lies on; nil: the root.
func mountOver(s *specs.Spec, p string) *specs.Mount {
	var best *specs.Mount
	for i := range s.Mounts {
		if m := &s.Mounts[i]; within(p, m.Destination) && (best == nil || len(m.Destination) >= len(best.Destination)) {
			best = m
		}
	}
	return best
}

func kindBelow(root int, p string) plan.Kind {
	fd, err := openBelow(root, strings.TrimPrefix(p, "/"), unix.O_PATH|unix.O_NOFOLLOW, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return plan.KindMissing
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return plan.KindMissing
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return plan.KindDir
	}
	return plan.KindFile
}

// MountPoints makes the places of the bundle's mounts that its root lacks, as the
// OCI runtimes do. Nothing that the root holds is followed.
func MountPoints(s *specs.Spec, root string, kinds map[string]plan.Kind) error {
	top, err := openPath(root, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return fault.Wrap(fault.Filesystem, "open root", err).WithField("root.path").WithPath(root)
	}
	defer unix.Close(top)
	var all fault.List
	for i := range s.Mounts {
		m := &s.Mounts[i]
		if over := mountBefore(s, i); over != nil {
			continue // it lies on another mount, not in the root
		}
		file := bundle.IsBind(m) && kinds[m.Source] == plan.KindFile
		if err := makePlace(top, strings.Split(strings.TrimPrefix(m.Destination, "/"), "/"), file); err != nil {
			all = append(all, fault.Wrap(fault.Filesystem, "make mount point", err).
				WithField("mounts["+strconv.Itoa(i)+"].destination").WithPath(m.Destination).
				WithHint("Make it in the root yourself; a symbolic link on the way is not followed."))
		}
	}
	return all.Err()
}

// mountBefore is an earlier mount that mount i lies below; nil: none.
func mountBefore(s *specs.Spec, i int) *specs.Mount {
	for k := range i {
		if within(s.Mounts[i].Destination, s.Mounts[k].Destination) {
			return &s.Mounts[k]
		}
	}
	return nil
}

func makePlace(root int, names []string, file bool) error {
	at, err := unix.Dup(root)
	if err != nil {
		return err
	}
	defer func() { unix.Close(at) }()
	for i, name := range names {
		if file && i == len(names)-1 {
			fd, err := unix.Openat(at, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
			if err == nil {
				unix.Close(fd)
			} else if errors.Is(err, unix.EEXIST) {
				err = nil
			}
			return err
		}
		const flags, how = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW, unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS
		next, err := openBelow(at, name, flags, how)
		if errors.Is(err, unix.ENOENT) {
			if err = unix.Mkdirat(at, name, 0o755); err == nil || errors.Is(err, unix.EEXIST) {
				next, err = openBelow(at, name, flags, how)
			}
		}
		if err != nil {
			return err
		}
		unix.Close(at)
		at = next
	}
	return nil
}
