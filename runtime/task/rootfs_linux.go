package task

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/wire"
	"github.com/capsule-run/capsule/spec/fault"
)

// mountFlags are the options of a root file system that are flags of mount(2). Others go
// to the file system as they are.
var mountFlags = map[string]uintptr{"bind": unix.MS_BIND, "rbind": unix.MS_BIND | unix.MS_REC, "ro": unix.MS_RDONLY, "rw": 0,
	"nosuid": unix.MS_NOSUID, "suid": 0, "nodev": unix.MS_NODEV, "dev": 0, "noexec": unix.MS_NOEXEC, "exec": 0, "noatime": unix.MS_NOATIME,
	"nodiratime": unix.MS_NODIRATIME, "relatime": unix.MS_RELATIME, "strictatime": unix.MS_STRICTATIME, "sync": unix.MS_SYNCHRONOUS,
	"dirsync": unix.MS_DIRSYNC, "async": 0, "defaults": 0}

// mountRootfs mounts what containerd's snapshotter names (types.Mount), one upon the
// other. On failure nothing is mounted.
func mountRootfs(target string, mounts []wire.Message) error {
	if len(mounts) == 0 {
		return nil
	}
	if err := os.MkdirAll(target, 0o711); err != nil {
		return fault.Wrap(fault.IO, "make root", err).WithPath(target)
	}
	for i, m := range mounts {
		if err := mountOne(target, m, "rootfs["+strconv.Itoa(i)+"]"); err != nil {
			unmountRootfs(target)
			return err
		}
	}
	return nil
}

func mountOne(target string, m wire.Message, field string) error {
	kind, source := m.String(1), m.String(2)
	fail := func(err error) error {
		return fault.Wrap(fault.Filesystem, "mount root", err).WithField(field).WithPath(source)
	}
	if m.String(3) != "" {
		return refuse(field+".target", "a root is mounted as a whole", "Use a snapshotter whose roots are one mount, such as overlayfs or native.")
	}
	var flags uintptr
	var data []string
	var ids idMaps
	for o := range m.Each(4) {
		option := string(o)
		flag, known := mountFlags[option]
		name, _, _ := strings.Cut(option, "=")
		ours, err := ids.take(option)
		switch {
		case err != nil:
			return fail(err)
		case ours:
		case known:
			flags |= flag
		case name == "loop" || strings.HasPrefix(name, "X-"):
			return refuse(field+".options", strconv.Quote(option)+" is not supported", "Use a snapshotter without it, such as overlayfs or native.")
		default:
			data = append(data, option)
		}
	}
	err := ids.check()
	switch mapped := len(ids.uid) > 0; {
	case err != nil:
	case mapped && kind == "overlay":
		err = ids.overlay(target, source, flags, data)
	case mapped && flags&unix.MS_BIND != 0:
		err = ids.mount(source, target, flags&unix.MS_REC != 0, 0)
	case mapped:
		return refuse(field+".options", "ids are mapped for overlays and binds only", "Use the snapshotter overlayfs or native, or a pod with hostUsers: true.")
	default:
		err = mountData(source, target, kind, flags, data)
	}
	if err == nil && flags&unix.MS_BIND != 0 && flags&^(unix.MS_BIND|unix.MS_REC) != 0 {
		err = unix.Mount("", target, "", flags|unix.MS_REMOUNT, "")
	}
	if err != nil {
		return fail(err)
	}
	return nil
}

// mountData is mount(2) with any number of options.
func mountData(source, target, kind string, flags uintptr, data []string) error {
	if text := strings.Join(data, ","); len(text) < os.Getpagesize()-1 { // which is all that mount(2) takes
		return unix.Mount(source, target, kind, flags, text)
	}
	return mountFrom(source, target, kind, flags, data)
}

const lowerOption = "lowerdir="

// lowerLayers finds the layers of an overlay, and which option names them. -1: none does.
func lowerLayers(data []string) (layers []string, at int) {
	for i, option := range data {
		if list, ok := strings.CutPrefix(option, lowerOption); ok {
			return strings.Split(list, ":"), i
		}
	}
	return nil, -1
}

// common finds the directory that all layers are below, and their names in it.
func common(layers []string) (dir string, names []string, ok bool) {
	dir = filepath.Dir(layers[0])
	for _, l := range layers {
		for !strings.HasPrefix(l, strings.TrimSuffix(dir, "/")+"/") {
			if dir = filepath.Dir(dir); dir == "/" || dir == "." {
				return "", nil, false
			}
		}
	}
	for _, l := range layers {
		names = append(names, l[len(dir)+1:])
	}
	return dir, names, true
}

// mountFrom mounts an overlay of many layers from within the directory that they share,
// so that their names are short.
func mountFrom(source, target, kind string, flags uintptr, data []string) error {
	layers, at := lowerLayers(data)
	if at < 0 {
		return unix.E2BIG
	}
	dir, names, ok := common(layers)
	if !ok {
		return unix.E2BIG
	}
	data[at] = lowerOption + strings.Join(names, ":")
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends, and with it its directory
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Chdir(dir)
		}
		if err == nil {
			err = unix.Mount(source, target, kind, flags, strings.Join(data, ","))
		}
		result <- err
	}()
	return <-result
}

// unmountRootfs takes every mount at the target away.
func unmountRootfs(target string) {
	for unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) == nil {
	}
}
