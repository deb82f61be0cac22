package host

import (
	"os"

	"github.com/capsule-run/capsule/runtime/launch"
	"github.com/capsule-run/capsule/runtime/plan"
	"golang.org/x/sys/unix"
)

// IDMapProbe tells whether a file system supports idmapped mounts by making
// one, detached, and dropping it. Which do depends on the file system, the
// kernel and what is stacked or mounted where; no table has it all. The zero
// value is ready. It needs root, and Close at the end.
type IDMapProbe struct {
	userns *os.File // made at the first try
	err    error
}

// try says why the tree below fd cannot be idmapped, or nothing.
func (i *IDMapProbe) try(fd int) error {
	if i.userns == nil && i.err == nil {
		maps := []plan.IDMap{{Inside: 0, Outside: firstSlotID, Size: 1}}
		i.userns, i.err = launch.UserNamespace(maps, maps)
	}
	if i.err != nil {
		return i.err
	}
	// Recursive, as the bundle asks for it: a mount below that cannot be
	// idmapped fails the whole.
	tree, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
	if err != nil {
		return os.NewSyscallError("open_tree", err)
	}
	defer unix.Close(tree)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(i.userns.Fd())}
	return os.NewSyscallError("mount_setattr", unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr))
}

// mountFacts is what the binds of one request say of their mounts.
type mountFacts struct {
	tried int
	// above are the directories that have a mount below them; nil: not looked at.
	above map[string]bool
	// errs are the answers of try by the id of the mount.
	errs map[uint64]error
}

// triedEach is how many binds of a request are tried each for itself. A try ends with
// a wait for all processors (RCU), and to read the table of mounts takes as long as some.
const triedEach = 4

// mappable says why the tree at s cannot be idmapped, or nothing. Where no mount lies
// below, that is a matter of the mount that s is on and asked once for each.
func (p *prober) mappable(s *source) error {
	m := &p.mounts
	if m.tried++; m.tried <= triedEach {
		return p.idmap.try(s.fd)
	}
	if m.above == nil {
		table, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			return p.idmap.try(s.fd)
		}
		m.above, m.errs = aboveMounts(parseMounts(string(table))), map[uint64]error{}
	}
	var st unix.Statx_t
	if m.above[s.path] || unix.Statx(s.fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st) != nil || st.Mask&unix.STATX_MNT_ID == 0 {
		return p.idmap.try(s.fd)
	}
	err, known := m.errs[st.Mnt_id]
	if !known {
		err = p.idmap.try(s.fd)
		m.errs[st.Mnt_id] = err
	}
	return err
}

// Close forgets the user namespace; another use makes another.
func (i *IDMapProbe) Close() {
	if i.userns != nil {
		_ = i.userns.Close() // nothing was written
	}
	*i = IDMapProbe{}
}
