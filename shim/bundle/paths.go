package bundle

import (
	"path"
	"strings"

	"github.com/capsule-run/capsule/spec/fault"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// maxSymlinks bounds how many symbolic links of the skeleton a destination may
// pass through.
const maxSymlinks = 8

// within says whether p is dir or lies below it. Both are absolute and clean.
func within(p, dir string) bool {
	return strings.HasPrefix(p, dir) && (len(p) == len(dir) || p[len(dir)] == '/' || dir == "/")
}

// cleanAbsolute says whether p is absolute and in its shortest lexical form.
func cleanAbsolute(p string) bool {
	return strings.HasPrefix(p, "/") && path.Clean(p) == p && strings.IndexByte(p, 0) < 0
}

// destination checks where a bind is to appear. Where the path leads through a
// symbolic link of the skeleton (/lib -> usr/lib) it is followed here, on
// paper: a mount never follows one (CVE-2026-87766).
func (b *builder) destination(bind *Bind) (string, bool) {
	dest := bind.Destination
	if !cleanAbsolute(dest) {
		b.refuse(fault.InvalidPath, bind.Field, "the destination must be an absolute, clean path").WithPath(dest)
		return "", false
	}
	for range maxSymlinks {
		next := b.follow(dest)
		if next == dest {
			return dest, b.mayCover(bind, dest)
		}
		dest = next
	}
	b.refuse(fault.InvalidPath, bind.Field, "the destination passes through too many symbolic links").WithPath(bind.Destination)
	return "", false
}

// follow replaces the first symbolic link of the skeleton on the way to dest.
func (b *builder) follow(dest string) string {
	for _, l := range b.skeleton.Symlinks {
		if !within(dest, l.Path) {
			continue
		}
		target := l.Target
		if !strings.HasPrefix(target, "/") {
			target = path.Dir(l.Path) + "/" + target
		}
		return path.Clean("/" + target + dest[len(l.Path):])
	}
	return dest
}

// mayCover refuses destinations that would hide or replace a wall.
func (b *builder) mayCover(bind *Bind, dest string) bool {
	bad := ""
	switch {
	case dest == "/":
		bad = "/"
	case within(dest, "/proc"):
		bad = "/proc"
	case within(dest, "/dev"):
		bad = "/dev"
	case within(dest, "/sys"):
		bad = "/sys"
	default:
		return true
	}
	b.refuse(fault.InvalidPath, bind.Field, "nothing can be bound over "+bad).WithPath(bind.Destination)
	return false
}

// bindMount shows source at dest. Every option is the recursive form: it holds
// for whatever is mounted below source too. A mapping has the id on disk as containerID and the id that the kernel then
// sees as hostID.
func bindMount(source, dest string, readonly bool, uids, gids []specs.LinuxIDMapping) specs.Mount {
	options := make([]string, 0, 5)
	options = append(options, "rbind")
	if readonly {
		options = append(options, "rro")
	} // not "rw", which would take from the mount that the host has it read-only
	options = append(options, "rnosuid", "rnodev")
	if uids != nil {
		options = append(options, "ridmap")
	}
	return specs.Mount{Destination: dest, Type: "bind", Source: source, Options: options, UIDMappings: uids, GIDMappings: gids}
}
