package task

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/launch"
	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/spec/fault"
)

// lowerDir is where the layers of a root whose ids are mapped are mounted for the moment
// in which the overlay over them is made.
const lowerDir = "lower"

// idMaps are the options of a root in a user namespace: uidmap=INSIDE:OUTSIDE:SIZE, and
// more of them after commas. Zero: its ids are as they are.
type idMaps struct{ uid, gid []plan.IDMap }

// take reads an option, or tells that it is another.
func (i *idMaps) take(option string) (ours bool, err error) {
	name, value, _ := strings.Cut(option, "=")
	switch name {
	case "uidmap":
		i.uid, err = parseMaps(value)
	case "gidmap":
		i.gid, err = parseMaps(value)
	default:
		return false, nil
	}
	return true, err
}

// check wants both or none: a mount has both.
func (i *idMaps) check() error {
	if len(i.uid) > 0 != (len(i.gid) > 0) {
		return fault.New(fault.InvalidValue, "read options", "has one of uidmap and gidmap without the other")
	}
	return nil
}

func parseMaps(text string) (list []plan.IDMap, err error) {
	for entry := range strings.SplitSeq(text, ",") {
		var n [3]uint64
		parts := strings.Split(entry, ":")
		ok := len(parts) == len(n)
		for k := 0; ok && k < len(n); k++ {
			n[k], err = strconv.ParseUint(parts[k], 10, 32)
			ok = err == nil
		}
		if !ok || n[2] == 0 || n[0]+n[2] > math.MaxUint32 || n[1]+n[2] > math.MaxUint32 {
			return nil, fault.New(fault.InvalidValue, "read options", strconv.Quote(entry)+" is no INSIDE:OUTSIDE:SIZE of ids")
		}
		list = append(list, plan.IDMap{Inside: uint32(n[0]), Outside: uint32(n[1]), Size: uint32(n[2])})
	}
	return list, nil
}

// mount mounts a copy of what is mounted at source, with the ids mapped, at target.
func (i *idMaps) mount(source, target string, recursive bool, set uint64) error {
	userns, err := launch.UserNamespace(i.uid, i.gid)
	if err != nil {
		return err
	}
	defer userns.Close()
	flags, deep := uint(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC), uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags, deep = flags|unix.AT_RECURSIVE, deep|unix.AT_RECURSIVE
	}
	fail := func(op string, err error) error {
		return fault.Wrap(fault.IDMapping, op, err).WithPath(source).
			WithHint("The file system below must know idmapped mounts; a pod with hostUsers: true needs none.")
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, source, flags)
	if err != nil {
		return fail("open_tree", err)
	}
	defer unix.Close(tree)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP | set, Propagation: unix.MS_PRIVATE, Userns_fd: uint64(userns.Fd())}
	if err := unix.MountSetattr(tree, "", deep, &attr); err != nil {
		return fail("mount_setattr", err)
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fail("move_mount", err)
	}
	return nil
}

// overlay mounts an overlay whose lower layers have their ids mapped. The upper one is
// written with the ids of the host already: the snapshotter has given it to the root of
// the namespace.
func (i *idMaps) overlay(target, source string, flags uintptr, data []string) error {
	layers, at := lowerLayers(data)
	if at < 0 {
		return fault.New(fault.InvalidValue, "map ids", "an overlay without lowerdir has no layers")
	}
	dir, names, ok := common(layers)
	if !ok {
		return fault.New(fault.InvalidValue, "map ids", "the layers have no directory in common").WithPath(layers[0])
	}
	mapped := filepath.Join(filepath.Dir(target), lowerDir)
	if err := os.Mkdir(mapped, 0o700); err != nil && !os.IsExist(err) {
		return fault.Wrap(fault.IO, "make directory", err).WithPath(mapped)
	}
	defer os.Remove(mapped)
	if err := i.mount(dir, mapped, false, unix.MOUNT_ATTR_RDONLY); err != nil {
		return err
	}
	defer unmountRootfs(mapped) // the overlay has mounts of its own of the layers
	for k, name := range names {
		names[k] = filepath.Join(mapped, name)
	}
	data[at] = lowerOption + strings.Join(names, ":")
	return mountData(source, target, "overlay", flags, data)
}
