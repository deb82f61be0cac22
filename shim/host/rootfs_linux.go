package host

import (
	"strconv"
	"unicode/utf8"

	"github.com/capsule-run/capsule/runtime/breach"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"golang.org/x/sys/unix"
)

// maxRootfsEntries bounds the top level of a root: each entry is a mount.
const maxRootfsEntries = 100

const rootfsField = "/isolation/rootfs"

// rootfs resolves isolation.rootfs and lists its top level.
func (p *prober) rootfs(path string) {
	s, f := p.resolve(rootfsField, path, useRootfs)
	if f != nil {
		p.refuse(f)
		return
	}
	defer unix.Close(s.fd)
	if s.stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		p.refuse(fault.New(fault.InvalidPath, "", "is not a directory").WithField(rootfsField).WithPath(path))
		return
	}
	names, err := listPath(s.fd)
	if err != nil {
		p.refuse(fault.Wrap(fault.InvalidPath, "list", err).WithField(rootfsField).WithPath(path))
		return
	}
	p.rootfsEntries(s.fd, path, names)
	h := &p.facts.Host
	h.Rootfs = s.path
	fd, err := openBelow(s.fd, "var/tmp", unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	if err == nil {
		h.RootfsVarTmp = true
		unix.Close(fd)
	}
	if h.Rootless {
		return
	}
	if err := p.idmap.try(s.fd); err != nil {
		p.degrade(spec.WallIDMap, "The files of "+path+" belong to nobody inside: its file system cannot be idmapped ("+err.Error()+").")
		return
	}
	h.RootfsIDMap = true
}

// rootfsEntries takes what is to be shown and refuses what no honest root has.
func (p *prober) rootfsEntries(fd int, path string, names []string) {
	refuse := func(name, message string) {
		p.refuse(fault.New(fault.InvalidPath, "", message).WithField(rootfsField).WithPath(path + "/" + name))
	}
	h := &p.facts.Host
	for _, name := range names {
		switch name {
		case "proc", "sys", "dev":
			// Never shown, but a link there was made to misdirect somebody
			// (CVE-2019-16884, CVE-2019-19921, CVE-2026-41579).
			if e, ok := entryAt(fd, name, "/"+name); ok && e.Target != "" && !breach.Of("rootfs_links") {
				refuse(name, "is a symbolic link")
			}
			continue
		case "tmp", "run", "workspace", "lost+found":
			continue
		}
		e, ok := entryAt(fd, name, "/"+name)
		switch {
		case !ok:
			continue // a device, a FIFO or a socket
		case !utf8.ValidString(name) || !utf8.ValidString(e.Target):
			refuse(strconv.Quote(name), "is not UTF-8, which no bundle can express")
			continue
		}
		h.RootfsEntries = append(h.RootfsEntries, e)
	}
	if len(h.RootfsEntries) > maxRootfsEntries {
		refuse("", "has more than "+strconv.Itoa(maxRootfsEntries)+" entries at its top")
	}
}

// listPath is list for an O_PATH descriptor.
func listPath(fd int) ([]string, error) {
	readable, err := openBelow(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, unix.RESOLVE_BENEATH)
	if err != nil {
		return nil, err
	}
	defer unix.Close(readable)
	return list(readable)
}
