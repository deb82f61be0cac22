package launch

import (
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/breach"
	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/spec/fault"
)

// openSource makes a detached copy of a host mount. The path is canonical; a
// symlink that appeared in it since is refused.
func openSource(s *plan.Source, maps *idMaps) (fd int, err error) {
	wrap := func(op string, err error) error {
		return fault.Wrap(fault.Filesystem, op, err).WithPath(s.Path).WithField(s.Field)
	}
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
	if breach.Of("source_links") {
		how.Resolve = 0
	}
	path, err := unix.Openat2(unix.AT_FDCWD, s.Path, &how)
	if err != nil {
		return -1, wrap("openat2", err)
	}
	defer unix.Close(path)
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH)
	recurse := uint(unix.AT_EMPTY_PATH)
	if s.Recursive {
		flags |= unix.AT_RECURSIVE
		recurse |= unix.AT_RECURSIVE
	}
	tree, err := unix.OpenTree(path, "", flags)
	if err == unix.EPERM {
		return -1, fault.Wrap(fault.Filesystem, "open_tree", err).WithPath(s.Path).WithField(s.Field).
			WithHint("This root has no CAP_SYS_ADMIN: give it to the container (docker run --cap-add SYS_ADMIN), or run capsule as another user than root.")
	}
	if err != nil {
		return -1, wrap("open_tree", err)
	}
	attr := unix.MountAttr{Attr_set: s.Set, Attr_clr: s.Clear, Propagation: s.Propagation}
	if len(s.UIDMap) > 0 {
		ns, err := maps.of(s.UIDMap, s.GIDMap)
		if err != nil {
			unix.Close(tree)
			return -1, err
		}
		attr.Attr_set |= unix.MOUNT_ATTR_IDMAP
		attr.Userns_fd = uint64(ns.Fd())
	}
	if err := unix.MountSetattr(tree, "", recurse, &attr); err != nil {
		unix.Close(tree)
		return -1, wrap("mount_setattr", err)
	}
	return tree, nil
}

// idMaps are the user namespaces of idmapped mounts that are being made. Each takes a
// process of its own for a moment, and most mounts of a sandbox have the same owner.
type idMaps []idMap

type idMap struct {
	uid, gid []plan.IDMap
	userns   *os.File
}

// of is the user namespace with these maps, which close closes.
func (m *idMaps) of(uid, gid []plan.IDMap) (*os.File, error) {
	for _, known := range *m {
		if slices.Equal(known.uid, uid) && slices.Equal(known.gid, gid) {
			return known.userns, nil
		}
	}
	if len(*m) == maxIDMaps {
		m.close()
	}
	userns, err := UserNamespace(uid, gid)
	if err == nil {
		*m = append(*m, idMap{uid, gid, userns})
	}
	return userns, err
}

// maxIDMaps bounds the descriptors that are held; with more owners some namespaces are made
// again.
const maxIDMaps = 16

func (m *idMaps) close() {
	for _, known := range *m {
		_ = known.userns.Close() // nothing was written
	}
	*m = nil
}

// UserNamespace makes a user namespace with the given maps for an idmapped
// mount. It needs root. The caller closes the file; nothing else keeps the
// namespace alive.
func UserNamespace(uid, gid []plan.IDMap) (*os.File, error) {
	flags := uint64(unix.CLONE_NEWUSER)
	if bareChild {
		flags |= unix.CLONE_VM // it lives in memory of ours, until Close has reaped it
	}
	idle, err := newIdle(flags)
	if err != nil {
		return nil, err
	}
	defer idle.Close()
	dir := "/proc/" + strconv.Itoa(idle.Pid)
	if err := writeMaps(dir, uid, gid, false); err != nil {
		return nil, err
	}
	fd, err := unix.Open(dir+"/ns/user", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fault.Wrap(fault.IDMapping, "open user namespace", err)
	}
	return os.NewFile(uintptr(fd), "userns"), nil
}
