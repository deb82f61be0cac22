package host

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/capsule-run/capsule/runtime/breach"
	"github.com/capsule-run/capsule/shim/bundle"
	"github.com/capsule-run/capsule/spec/fault"
	"golang.org/x/sys/unix"
)

// source is a host path of the request, resolved.
type source struct {
	fd   int    // O_PATH; the caller closes it
	path string // canonical
	stat unix.Stat_t
}

// resolve opens a host path of the request and applies policy to what it
// really is. Symbolic links on the way are followed; magic links of /proc, whose
// targets have no path, are not.
func (p *prober) resolve(field, path string, u use) (source, *fault.Fault) {
	refuse := func(code fault.Code, message string) *fault.Fault {
		return fault.New(code, "", message).WithField(field).WithPath(path)
	}
	if !strings.HasPrefix(path, "/") {
		return source{}, refuse(fault.InvalidPath, "must be absolute")
	}
	// By name first, so that nobody learns from a refusal what exists there.
	if r := p.policy.check(path, u); r != "" {
		return source{}, refuse(fault.PathRefused, string(r))
	}
	how := uint64(unix.RESOLVE_NO_MAGICLINKS)
	if breach.Of("source_magic_links") {
		how = 0
	}
	// A host replaces files while they are used, as ldconfig does its cache:
	// what has lost its name since it was opened is opened again.
	for tries := 1; ; tries++ {
		fd, err := openPath(path, how)
		if err != nil {
			return source{}, openFault(err).WithField(field).WithPath(path)
		}
		s := source{fd: fd}
		moved, f := p.examine(&s, u, refuse)
		if f == nil {
			return s, nil
		}
		unix.Close(fd)
		if !moved || tries == maxMoves {
			return source{}, f
		}
	}
}

// maxMoves bounds how often a source is opened again because it was replaced.
const maxMoves = 32

// examine fills s from its descriptor and applies policy; moved means that the
// file has no name any more or another one.
func (p *prober) examine(s *source, u use, refuse func(fault.Code, string) *fault.Fault) (moved bool, f *fault.Fault) {
	if err := unix.Fstat(s.fd, &s.stat); err != nil {
		return false, refuse(fault.InvalidPath, "cannot be examined: "+err.Error())
	}
	var err error
	if s.path, err = pathOf(s.fd); err != nil {
		return false, refuse(fault.InvalidPath, "has no path: "+err.Error())
	}
	if !sameFile(s) {
		return true, refuse(fault.InvalidPath, "was moved or removed while it was resolved")
	}
	return false, p.judge(s, u, refuse)
}

// judge applies policy to an open source that lies at its canonical path.
func (p *prober) judge(s *source, u use, refuse func(fault.Code, string) *fault.Fault) *fault.Fault {
	switch kind := s.stat.Mode & unix.S_IFMT; {
	case kind == unix.S_IFDIR, kind == unix.S_IFREG, breach.Of("source_kinds"):
	case kind == unix.S_IFSOCK:
		// Whoever listens there trusts its callers to be the host's.
		return refuse(fault.PathRefused, "is a socket")
	case kind == unix.S_IFIFO:
		return refuse(fault.PathRefused, "is a FIFO")
	default:
		return refuse(fault.PathRefused, "is a device")
	}
	if r := p.policy.check(s.path, u); r != "" {
		return refuse(fault.PathRefused, "leads to "+s.path+", which "+string(r))
	}
	if name := kernelFilesystem(s.fd); name != "" && !breach.Of("source_filesystems") {
		return refuse(fault.PathRefused, "lies on the kernel's "+name)
	}
	if !utf8.ValidString(s.path) {
		return refuse(fault.InvalidPath, "leads to a path that is not UTF-8, which no bundle can express")
	}
	return nil
}

// sameFile says whether the canonical path, with no symbolic link followed,
// still leads to what was examined. A removed file fails here: the kernel
// appends " (deleted)" to its path.
func sameFile(s *source) bool {
	fd, err := openPath(s.path, unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Dev == s.stat.Dev && st.Ino == s.stat.Ino
}

func openPath(path string, resolve uint64) (int, error) {
	return openBelow(unix.AT_FDCWD, path, unix.O_PATH, resolve)
}

func openBelow(dirfd int, path string, flags, resolve uint64) (int, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: resolve}
	for tries := 1; ; tries++ {
		fd, err := unix.Openat2(dirfd, path, &how)
		// EAGAIN: a rename elsewhere made a scoped lookup uncertain, see
		// openat2(2). Whoever renames in a loop must not keep us here.
		if (err != unix.EINTR && err != unix.EAGAIN) || tries == maxTries {
			return fd, err
		}
	}
}

// maxTries bounds the repetitions of an interrupted openat2.
const maxTries = 128

// openFault explains why a path could not be opened.
func openFault(err error) *fault.Fault {
	switch {
	case errors.Is(err, unix.ENOSYS):
		return fault.Wrap(fault.Unsupported, "openat2", err).WithHint("capsule needs Linux 5.12 or later.")
	case errors.Is(err, unix.ENOENT):
		return fault.Wrap(fault.InvalidPath, "", err).WithHint("Create it before the execution: capsule makes nothing on the host.")
	}
	return fault.Wrap(fault.InvalidPath, "", err)
}

// pathOf is the canonical path of an open file, as proc(5) shows it.
func pathOf(fd int) (string, error) {
	var buf [unix.PathMax]byte
	n, err := unix.Readlink("/proc/self/fd/"+strconv.Itoa(fd), buf[:])
	if err != nil {
		return "", err
	}
	if n == 0 || n == len(buf) || buf[0] != '/' {
		return "", errors.New("it lies outside the root or is too long")
	}
	return string(buf[:n]), nil
}

// canonical is the canonical path of an existing file of the host's.
func canonical(path string) (string, error) {
	fd, err := openPath(path, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	return pathOf(fd)
}

// kernelFilesystem names the file system of fd when its files are doors into
// the kernel, wherever it is mounted. Empty: an ordinary one.
func kernelFilesystem(fd int) string {
	var st unix.Statfs_t
	if unix.Fstatfs(fd, &st) != nil {
		return ""
	}
	switch int64(st.Type) {
	case unix.PROC_SUPER_MAGIC:
		return "proc"
	case unix.SYSFS_MAGIC:
		return "sysfs"
	case unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC:
		return "cgroup"
	case unix.DEVPTS_SUPER_MAGIC:
		return "devpts"
	case unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC:
		return "debugfs"
	case unix.SECURITYFS_MAGIC:
		return "securityfs"
	case unix.BPF_FS_MAGIC:
		return "bpf"
	case unix.BINFMTFS_MAGIC:
		return "binfmt_misc"
	case unix.NSFS_MAGIC:
		return "nsfs"
	}
	return ""
}

func kindOf(mode uint32) bundle.Kind {
	if mode&unix.S_IFMT == unix.S_IFDIR {
		return bundle.Directory
	}
	return bundle.RegularFile
}
