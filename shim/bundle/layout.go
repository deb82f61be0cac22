package bundle

import (
	"slices"
	"strings"

	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/spec/fault"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// ttyGID is the group of terminals in a new devpts, as every distribution has it.
const ttyGID = 5

// layout decides the whole file tree: the skeleton of the root and the mounts,
// parents before what lies below them.
func (b *builder) layout() {
	if b.host.Rootfs != "" {
		b.rootfs()
	} else {
		b.systemDirectories()
	}
	b.pseudoFilesystems()
	b.writable()
	b.binds()
	// In the order of strings a directory comes before everything below it.
	slices.SortFunc(b.mounts, func(x, y specs.Mount) int { return strings.Compare(x.Destination, y.Destination) })
}

func (b *builder) systemDirectories() {
	for _, e := range b.host.System {
		b.show(e, e.Path, nil)
	}
	b.skeleton.Files = b.etcFiles()
	for _, e := range b.host.Etc {
		b.show(e, e.Path, nil)
		if e.Kind != Symlink {
			// Configuration holds no programs.
			m := &b.mounts[len(b.mounts)-1]
			m.Options = append(m.Options, "rnoexec")
		}
	}
	b.skeleton.Symlinks = append(b.skeleton.Symlinks, plan.Symlink{Path: "/var/run", Target: "/run"})
}

// rootfs shows the top-level entries of the given root one by one below our
// own: /proc, /dev and the writable tmpfs are then mounted on directories that
// capsule made, never on what the given root has there (CVE-2019-16884,
// CVE-2019-19921, CVE-2026-41579).
func (b *builder) rootfs() {
	var mapping []specs.LinuxIDMapping
	if b.host.RootfsIDMap && !b.host.Rootless {
		mapping = b.slotMapping()
	}
	hasEtc := false
	for _, e := range b.host.RootfsEntries {
		hasEtc = hasEtc || e.Path == "/etc"
		b.show(e, b.host.Rootfs+e.Path, mapping)
	}
	if !hasEtc {
		b.skeleton.Files = append(b.skeleton.Files, b.etcFiles()...)
	}
}

// show binds a directory or file read-only, or re-creates a symbolic link.
func (b *builder) show(e Entry, source string, mapping []specs.LinuxIDMapping) {
	if e.Kind == Symlink {
		b.skeleton.Symlinks = append(b.skeleton.Symlinks, plan.Symlink{Path: e.Path, Target: e.Target})
		return
	}
	b.mount(bindMount(source, e.Path, true, mapping, mapping))
}

func (b *builder) pseudoFilesystems() {
	pts := []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}
	if !b.host.Rootless {
		// Rootless, the group of terminals is not mapped.
		pts = append(pts, "gid="+id(ttyGID))
	}
	// Who may not trace process 1 does not see it either (proc(5)).
	b.mount(specs.Mount{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev", "hidepid=invisible"}})
	// Devices are bound onto files in it; it need not hold more than their names.
	b.mount(specs.Mount{Destination: "/dev", Type: "tmpfs", Source: "tmpfs",
		Options: []string{"nosuid", "noexec", "mode=755", "size=65536", "nr_inodes=64"}})
	b.mount(specs.Mount{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: pts})
	b.mount(specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: b.tmpfsOptions(eighthsShm, "1777", "noexec")})
	b.mount(specs.Mount{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}})
}

func (b *builder) writable() {
	uid, gid := "uid="+id(b.uid), "gid="+id(b.gid)
	tmpfs := func(path string, options []string) {
		b.mount(specs.Mount{Destination: path, Type: "tmpfs", Source: "tmpfs", Options: options})
	}
	tmpfs("/workspace", b.tmpfsOptions(eighthsWorkspace, "700", uid, gid))
	tmpfs("/tmp", b.tmpfsOptions(eighthsTmp, "1777"))
	tmpfs("/run", b.tmpfsOptions(eighthsRun, "755", uid, gid))
	if b.varTmp() {
		tmpfs("/var/tmp", b.tmpfsOptions(eighthsVarTmp, "1777"))
	}
}

// varTmp says whether /var/tmp can be mounted: on a directory of our own, or on
// a real one of the given root.
func (b *builder) varTmp() bool {
	if b.host.Rootfs == "" {
		return true
	}
	for _, e := range b.host.RootfsEntries {
		if e.Path == "/var" {
			return e.Kind == Directory && b.host.RootfsVarTmp
		}
	}
	return true
}

// binds adds what the request asked for. A bind replaces the mounts and the
// skeleton at and below its destination.
func (b *builder) binds() {
	iso := &b.req.Isolation
	if len(b.host.Binds) != len(iso.ReadonlyPaths)+len(iso.WritablePaths)+len(iso.BindMounts) {
		b.refuse(fault.InvalidPath, "/isolation", "the binds of the request were not resolved")
		return
	}
	mounts := make([]specs.Mount, 0, len(b.host.Binds))
	for i := range b.host.Binds {
		bind := &b.host.Binds[i]
		dest, ok := b.destination(bind)
		if !ok {
			continue
		}
		if slices.ContainsFunc(mounts, func(m specs.Mount) bool { return m.Destination == dest }) {
			b.refuse(fault.InvalidPath, bind.Field, "another bind has the same destination").WithPath(bind.Destination)
			continue
		}
		var uids, gids []specs.LinuxIDMapping
		if bind.IDMap && !b.host.Rootless {
			uids = []specs.LinuxIDMapping{{ContainerID: bind.OwnerUID, HostID: b.host.SlotBase + b.uid, Size: 1}}
			gids = []specs.LinuxIDMapping{{ContainerID: bind.OwnerGID, HostID: b.host.SlotBase + b.gid, Size: 1}}
		}
		b.clear(dest)
		mounts = append(mounts, bindMount(bind.Source, dest, bind.Readonly, uids, gids))
	}
	b.mounts = append(b.mounts, mounts...)
}

// clear drops everything at and below a destination that a bind takes over.
func (b *builder) clear(dest string) {
	b.mounts = slices.DeleteFunc(b.mounts, func(m specs.Mount) bool { return within(m.Destination, dest) })
	b.skeleton.Files = slices.DeleteFunc(b.skeleton.Files, func(f plan.File) bool { return within(f.Path, dest) })
	b.skeleton.Symlinks = slices.DeleteFunc(b.skeleton.Symlinks, func(l plan.Symlink) bool { return within(l.Path, dest) })
}

func (b *builder) mount(m specs.Mount) { b.mounts = append(b.mounts, m) }
