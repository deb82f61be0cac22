package host

import (
	"slices"
	"strings"

	"github.com/capsule-run/capsule/spec"
)

// IO says how far a bound on the traffic to disks reaches, for what one sandbox
// is shown. Each entry is a path with the type of its file system.
type IO struct {
	// Elsewhere are paths whose bytes come over no disk that the kernel charges
	// to a control group: network and FUSE file systems, ZFS.
	Elsewhere []string
	// WrittenElsewhere are those of Elsewhere that can be written.
	WrittenElsewhere []string
	// Buffered are writable paths on disks, whose bytes are written back later:
	// charged to the group only with cgroup v2.
	Buffered []string
	// Uncharged are those of Buffered whose file system does not do that either.
	Uncharged []string
}

// shownPath is a host path that a sandbox sees, with what is mounted below it.
type shownPath struct {
	path     string
	writable bool
}

// mount is a line of mountinfo.
type mount struct {
	point, kind, options string
	// device is false for a file system without a block device of its own.
	device bool
}

// parseMounts reads proc_pid_mountinfo(5). Fields have single spaces between them; every
// other white space but tabs and newlines may be in a name as it is.
func parseMounts(table string) []mount {
	var list []mount
	for line := range strings.Lines(table) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), " ")
		end := slices.Index(fields, "-")
		if end < 6 || len(fields) < end+3 {
			continue
		}
		options := Unescape(fields[len(fields)-1])
		list = append(list, mount{Unescape(fields[4]), fields[end+1], options, !strings.HasPrefix(fields[2], "0:")})
	}
	return list
}

// aboveMounts are the directories with a mount somewhere below them.
func aboveMounts(mounts []mount) map[string]bool {
	above := map[string]bool{}
	for i := range mounts {
		for dir := mounts[i].point; len(dir) > 1; {
			if dir = dir[:max(1, strings.LastIndexByte(dir, '/'))]; above[dir] {
				break // and so are those above it
			}
			above[dir] = true
		}
	}
	return above
}

// Unescape undoes the octal escapes of space, tab, newline and backslash in the paths of
// mountinfo.
func Unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// layersDeep bounds overlays upon overlays; the kernel stacks two.
const layersDeep = 4

// reachOf sorts what is shown. exists tells whether a directory is there.
func reachOf(mounts []mount, shown []shownPath, exists func(string) bool) IO {
	r := reach{mounts: mounts, exists: exists}
	for _, s := range shown {
		for _, m := range mountsOf(mounts, s.path) {
			r.sort(m, s.writable, layersDeep)
		}
	}
	return r.io
}

type reach struct {
	mounts []mount
	exists func(string) bool
	io     IO
}

func (r *reach) sort(m *mount, writable bool, depth int) {
	switch {
	case inMemory(m.kind):
	case m.kind == "overlay":
		if layers := r.layers(m); layers != nil && depth > 0 {
			for _, layer := range layers {
				r.sort(layer, writable, depth-1)
			}
			return
		}
		r.elsewhere(m, "overlay with layers that cannot be seen from here", writable)
	case !onDisk(m):
		r.elsewhere(m, m.kind, writable)
	case writable:
		note(&r.io.Buffered, m, m.kind)
		if !chargesWriteback(m.kind) {
			note(&r.io.Uncharged, m, m.kind)
		}
	}
}

func (r *reach) elsewhere(m *mount, kind string, writable bool) {
	note(&r.io.Elsewhere, m, kind)
	if writable {
		note(&r.io.WrittenElsewhere, m, kind)
	}
}

func note(list *[]string, m *mount, kind string) {
	if text := m.point + " (" + kind + ")"; !slices.Contains(*list, text) {
		*list = append(*list, text)
	}
}

// layers are the mounts that the layers of an overlay are on. Nil: one of them
// cannot be seen, as from inside a container.
func (r *reach) layers(m *mount) []*mount {
	var list []*mount
	for option := range strings.SplitSeq(m.options, ",") {
		name, value, _ := strings.Cut(option, "=")
		switch name {
		case "lowerdir", "lowerdir+", "datadir+", "upperdir":
		default:
			continue
		}
		for path := range strings.SplitSeq(value, ":") {
			if path == "" {
				continue // "::" stands before layers of data alone
			}
			on := mountOf(r.mounts, path)
			if !strings.HasPrefix(path, "/") || on == nil || !r.exists(path) {
				return nil
			}
			list = append(list, on)
		}
	}
	return list
}

// mountsOf are the mount that path is on and those below path.
func mountsOf(mounts []mount, path string) []*mount {
	var list []*mount
	for i := range mounts {
		if m := &mounts[i]; m.point != path && below(m.point, path) {
			list = append(list, m)
		}
	}
	if on := mountOf(mounts, path); on != nil {
		list = append(list, on)
	}
	return list
}

// mountOf is the mount that path is on; of several at one place the last lies
// on top. Nil: it cannot be told.
func mountOf(mounts []mount, path string) (on *mount) {
	for i := range mounts {
		if m := &mounts[i]; below(path, m.point) && (on == nil || len(m.point) >= len(on.point)) {
			on = m
		}
	}
	return on
}

func below(path, dir string) bool {
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(dir, "/"))
	return ok && (rest == "" || rest[0] == '/')
}

// inMemory is true for file systems whose files are the kernel's or in memory.
func inMemory(kind string) bool {
	switch kind {
	case "tmpfs", "ramfs", "devtmpfs", "hugetlbfs", "proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2", "securityfs", "debugfs",
		"tracefs", "bpf", "pstore", "efivarfs", "configfs", "fusectl", "binfmt_misc", "nsfs", "rpc_pipefs", "selinuxfs", "autofs":
		return true
	}
	return false
}

// onDisk is true where the process that reads moves the bytes of a disk itself.
func onDisk(m *mount) bool {
	switch m.kind {
	case "btrfs", "bcachefs":
		return true
	case "fuseblk":
		return false // a process elsewhere reads the disk
	}
	return m.device
}

// chargesWriteback is true for file systems that charge what is written back
// later to the group that wrote it (SB_I_CGROUPWB).
func chargesWriteback(kind string) bool {
	switch kind {
	case "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs":
		return true
	}
	return false
}

// Gaps are the paths that bounds miss. writeback: the kernel charges what is
// written back later to its writer's group, as with cgroup v2 alone.
func (r *IO) Gaps(bounds *spec.IOLimits, writeback bool) []string {
	var gaps []string
	if bounds.ReadBytesPerSecond != nil || bounds.ReadOpsPerSecond != nil {
		gaps = append(gaps, r.Elsewhere...)
	}
	if bounds.WriteBytesPerSecond != nil || bounds.WriteOpsPerSecond != nil {
		gaps = append(gaps, r.WrittenElsewhere...)
		if writeback {
			return append(gaps, r.Uncharged...)
		}
		gaps = append(gaps, r.Buffered...)
	}
	return gaps
}
