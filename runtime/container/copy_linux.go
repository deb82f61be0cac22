package container

import (
	"errors"
	"io"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/launch"
	"github.com/capsule-run/capsule/spec/fault"
)

// copies fills each tmpfs of the plan that begins with what it covers.
func (l *launcher) copies(sb *launch.Sandbox) error {
	for _, dest := range l.plan.Copies {
		from, err := sb.Descriptor()
		if err != nil {
			return err
		}
		defer unix.Close(from)
		if err := sb.Continue(); err != nil {
			return err
		}
		to, err := sb.Descriptor()
		if err != nil {
			return err
		}
		defer unix.Close(to)
		if err := copyTree(from, to); err != nil {
			return fault.Wrap(fault.Filesystem, "copy", err).WithField("mounts").WithPath(dest)
		}
		if err := sb.Continue(); err != nil {
			return err
		}
	}
	return nil
}

// copyTree copies what is in one directory to another, with owners and modes. It follows
// no link and reads nothing but regular files: the source is a container's.
func copyTree(from, to int) error {
	fd, err := unix.Openat(from, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), "directory")
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := copyEntry(fd, to, name); err != nil {
			return errors.New(path.Join("/", name) + ": " + err.Error())
		}
	}
	return nil
}

func copyEntry(from, to int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	mode := st.Mode & 0o7777
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		target := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(from, name, target)
		if err == nil {
			err = unix.Symlinkat(string(target[:n]), to, name)
		}
		if err != nil {
			return err
		}
		return unix.Fchownat(to, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
	case unix.S_IFDIR:
		if err := unix.Mkdirat(to, name, 0o700); err != nil {
			return err
		}
		return both(from, to, name, unix.O_RDONLY|unix.O_DIRECTORY, unix.O_RDONLY|unix.O_DIRECTORY, func(a, b int) error {
			return errors.Join(copyTree(a, b), unix.Fchown(b, int(st.Uid), int(st.Gid)), unix.Fchmod(b, mode))
		})
	case unix.S_IFREG:
		return both(from, to, name, unix.O_RDONLY|unix.O_NONBLOCK, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, func(a, b int) error {
			var now unix.Stat_t
			if err := unix.Fstat(a, &now); err != nil || now.Mode&unix.S_IFMT != unix.S_IFREG {
				return errors.Join(err, errors.New("is exchanged while it is copied"))
			}
			return errors.Join(copyFile(a, b), unix.Fchown(b, int(st.Uid), int(st.Gid)), unix.Fchmod(b, mode))
		})
	case unix.S_IFIFO:
		if err := unix.Mknodat(to, name, unix.S_IFIFO|mode, 0); err != nil {
			return err
		}
		return unix.Fchownat(to, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
	}
	return errors.New("is a device or a socket, of which no copy is made")
}

// both opens an entry here and there.
func both(from, to int, name string, read, write int, use func(a, b int) error) error {
	a, err := unix.Openat(from, name, read|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(a)
	b, err := unix.Openat(to, name, write|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(b)
	return use(a, b)
}

// copyFile copies the content of a regular file.
func copyFile(a, b int) error {
	source, err := os.Open("/proc/self/fd/" + strconv.Itoa(a))
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(b), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}
