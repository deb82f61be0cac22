package plan

import (
	"encoding/binary"
	"path"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/spec/fault"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func quoteShort(s string) string {
	if len(s) > 24 {
		s = s[:24] + "..."
	}
	return strconv.Quote(s)
}

// options are the parsed options of one OCI mount.
type options struct {
	bind, recursive, idmap    bool
	set, clear                uint64 // mount_setattr attributes
	setRecursive, propagation uint64 // attributes for the whole tree
	data                      []string
}

// attribute options: what each sets and clears; a leading r applies to the
// whole tree (Linux 5.12, as runc documents).
var attributes = map[string]struct{ set, clear uint64 }{
	"ro": {mountAttrRdonly, 0}, "rw": {0, mountAttrRdonly},
	"nosuid": {mountAttrNosuid, 0}, "suid": {0, mountAttrNosuid},
	"nodev": {mountAttrNodev, 0}, "dev": {0, mountAttrNodev},
	"noexec": {mountAttrNoexec, 0}, "exec": {0, mountAttrNoexec},
	"noatime": {mountAttrNoatime, mountAttrAtimeMask}, "strictatime": {mountAttrStrictatime, mountAttrAtimeMask},
	"relatime": {0, mountAttrAtimeMask}, "nodiratime": {mountAttrNodiratime, 0}, "diratime": {0, mountAttrNodiratime},
	"nosymfollow": {mountAttrNosymfollow, 0}, "symfollow": {0, mountAttrNosymfollow},
}

var propagations = map[string]uint64{
	"private": msPrivate, "rprivate": msPrivate, "slave": msSlave, "rslave": msSlave,
	"shared": msShared, "rshared": msShared, "unbindable": msUnbindable, "runbindable": msUnbindable,
}

func parseOptions(m specs.Mount, field string) (options, error) { return parseWords(m, field, false) }

// parseWords is parseOptions. In a foreign configuration a bind may have words for a
// file system, which mount(2) does not look at.
func parseWords(m specs.Mount, field string, foreign bool) (options, error) {
	o := options{propagation: msPrivate}
	if m.Type == "bind" {
		o.bind = true
	}
	for _, opt := range m.Options {
		name, recursive := opt, false
		if _, ok := attributes[name]; !ok && strings.HasPrefix(name, "r") {
			if _, ok := attributes[name[1:]]; ok {
				name, recursive = name[1:], true
			}
		}
		switch a, ok := attributes[name]; {
		case ok && recursive:
			o.setRecursive |= a.set
		case ok:
			o.set, o.clear = o.set&^a.clear|a.set, o.clear&^a.set|a.clear
		case opt == "bind":
			o.bind = true
		case opt == "rbind":
			o.bind, o.recursive = true, true
		case opt == "idmap" || opt == "ridmap":
			o.idmap = true
		case propagations[opt] != 0:
			o.propagation = propagations[opt]
		case opt == "defaults" || opt == "":
		default:
			o.data = append(o.data, opt)
		}
	}
	if o.bind && len(o.data) > 0 && !foreign {
		return o, fault.New(fault.InvalidBundle, "parse mount options", "option "+strconv.Quote(o.data[0])+" means nothing on a bind mount").WithField(field + ".options")
	}
	return o, nil
}

func mountField(i int) string { return "mounts[" + strconv.Itoa(i) + "]" }

// sources makes the detached trees of all binds: by the launcher with its
// privilege, or, rootless, by the first steps inside.
func (c *compiler) sources() error {
	c.next = RegSource0
	for i, m := range c.spec.Mounts {
		o, err := parseOptions(m, mountField(i))
		if err != nil {
			return err
		}
		if !o.bind {
			continue
		}
		if int(c.next) >= RegCount {
			return fault.New(fault.OutOfRange, "compile plan", "more binds than a plan may have").WithField(mountField(i))
		}
		c.addSource(m.Source, mountField(i), o, m)
	}
	if !c.hasDev() {
		return nil
	}
	for _, d := range devices {
		c.addSource(d, "linux.devices", options{bind: true, set: mountAttrNosuid | mountAttrNoexec, propagation: msPrivate}, specs.Mount{})
	}
	return nil
}

func (c *compiler) source(to Reg, path, field string, o options) Source {
	return Source{Reg: to, Path: path, Recursive: o.recursive, Set: o.set | o.setRecursive, Clear: o.clear, Propagation: o.propagation, Field: field}
}

func (c *compiler) addSource(source, field string, o options, m specs.Mount) {
	src := c.source(c.next, source, field, o)
	if o.idmap {
		src.UIDMap, src.GIDMap = idmaps(m.UIDMappings), idmaps(m.GIDMappings)
	}
	c.next++
	if !c.facts.Rootless {
		c.plan.Sources = append(c.plan.Sources, src)
		return
	}
	c.field = field
	c.cloneHere(src, RegTree)
}

// cloneHere makes the detached tree of a source by steps, with handle as the register of
// its path.
func (c *compiler) cloneHere(src Source, handle Reg) {
	source := src.Path
	flags := int64(openTreeClone | oCloexec | atEmptyPath)
	recurse := int64(atEmptyPath)
	if src.Recursive {
		flags |= atRecursive
		recurse |= atRecursive
	}
	c.into(handle, OpOpenat2, source, imm(atFDCWD), str(source), raw(openHow(resolveNoSymlinks|resolveNoMagiclinks), "O_PATH, no symlinks"), imm(openHowSize))
	c.into(src.Reg, OpOpenTree, source, reg(handle), str(""), flag(flags, treeFlags(src.Recursive)))
	c.closeReg(handle)
	c.do(OpMountSetattr, source, reg(src.Reg), str(""), imm(recurse),
		raw(mountAttr(src.Set, src.Clear, src.Propagation), attrNote(src.Set)), imm(mountAttrSize))
}

func treeFlags(recursive bool) string {
	if recursive {
		return "OPEN_TREE_CLONE|AT_RECURSIVE"
	}
	return "OPEN_TREE_CLONE"
}

func attrNote(set uint64) string {
	var names []string
	for _, n := range []string{"ro", "nosuid", "nodev", "noexec"} {
		if set&attributes[n].set != 0 {
			names = append(names, n)
		}
	}
	return strings.Join(append(names, "private"), ",")
}

const openHowSize = 24

// openHow is struct open_how for an O_PATH descriptor.
func openHow(resolve uint64) []byte { return openHowTo(oPath, resolve) }

// openHowTo is struct open_how for a descriptor with the given flags.
func openHowTo(flags, resolve uint64) []byte {
	b := make([]byte, 0, openHowSize)
	for _, v := range []uint64{flags | oCloexec, 0, resolve} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

// mounts attaches everything in the order of the configuration.
func (c *compiler) mounts() error {
	bind := RegSource0
	for i, m := range c.spec.Mounts {
		c.field = mountField(i)
		o, err := parseOptions(m, c.field)
		if err != nil {
			return err
		}
		dest := path.Clean(m.Destination)
		switch {
		case o.bind:
			err = c.attach(dest, bind, c.facts.Kinds[m.Source])
			bind++
		case m.Type == "cgroup":
			err = c.cgroups(dest, m, o)
		default:
			err = c.mountFS(dest, m, o)
		}
		if err != nil {
			return err
		}
		if m.Type == "tmpfs" && dest == "/dev" {
			if err := c.dev(); err != nil {
				return err
			}
		}
	}
	return nil
}

// attach moves a detached tree to its place.
func (c *compiler) attach(dest string, source Reg, kind Kind) error {
	if err := c.place(dest, kind); err != nil {
		return err
	}
	c.target(dest)
	c.do(OpMoveMount, dest, reg(source), str(""), reg(RegTarget), str(""), flag(moveMountFEmptyPath|moveMountTEmptyPath, "F_EMPTY_PATH|T_EMPTY_PATH"))
	c.closeReg(RegTarget)
	c.closeReg(source)
	c.mounted(dest, false)
	return nil
}

// place makes the mount point where the tree around it is ours.
func (c *compiler) place(dest string, kind Kind) error {
	if kind == KindMissing {
		return fault.New(fault.InvalidPath, "bind", "the source does not exist").WithField(c.field).WithPath(dest)
	}
	if err := c.mkdirs(path.Dir(dest)); err != nil {
		return err
	}
	if kind == KindDir {
		return c.mkdirs(dest)
	}
	if c.fresh(dest) && !c.dirs[dest] {
		c.create(dest)
		c.closeReg(RegFile)
		c.dirs[dest] = true
	}
	return nil
}

// target opens a mount point by descriptor. No symlink is followed, so a
// hostile tree cannot misdirect the mount.
func (c *compiler) target(dest string) {
	c.into(RegTarget, OpOpenat2, dest, reg(RegRoot), str(rel(dest)),
		raw(openHow(resolveInRoot|resolveNoSymlinks|resolveNoMagiclinks), "O_PATH, in root, no symlinks"), imm(openHowSize))
}

// mountFS mounts a new file system. mount(2) on "." after fchdir resolves no path.
func (c *compiler) mountFS(dest string, m specs.Mount, o options) error {
	if err := c.place(dest, KindDir); err != nil {
		return err
	}
	c.target(dest)
	c.do(OpFchdir, dest, reg(RegTarget))
	set := o.set | o.setRecursive
	source := m.Source
	if source == "" {
		source = m.Type
	}
	c.do(OpMount, dest, str(source), str("."), str(m.Type), flag(int64(msFlags(set)), attrNote(set)), str(strings.Join(o.data, ",")))
	c.do(OpFchdir, "/", reg(RegRoot))
	c.closeReg(RegTarget)
	c.mounted(dest, m.Type == "tmpfs")
	c.dirs[dest] = true // also where a root on disk brought the mount point
	if m.Type == "tmpfs" && dest != "/dev" && len(c.plan.Disks) < MaxDisks {
		c.plan.Disks = append(c.plan.Disks, dest)
	}
	return nil
}

// msFlags translates mount_setattr attributes to mount(2) flags.
func msFlags(attr uint64) uint64 {
	var f uint64
	for _, p := range [][2]uint64{{mountAttrRdonly, msRdonly}, {mountAttrNosuid, msNosuid}, {mountAttrNodev, msNodev},
		{mountAttrNoexec, msNoexec}, {mountAttrNoatime, msNoatime}, {mountAttrStrictatime, msStrictatime}} {
		if attr&p[0] != 0 {
			f |= p[1]
		}
	}
	return f
}

// devices are the default devices of the OCI runtime specification. A user
// namespace may not make device nodes, so the host's are bound.
var devices = []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"}

// hasDev tells whether the configuration mounts a fresh /dev.
func (c *compiler) hasDev() bool {
	for _, m := range c.spec.Mounts {
		if m.Type == "tmpfs" && path.Clean(m.Destination) == "/dev" {
			return true
		}
	}
	return false
}

// dev fills a fresh /dev. It comes right after its tmpfs, before later mounts
// that may lie below.
func (c *compiler) dev() error {
	c.field = "linux.devices"
	first := c.next - Reg(len(devices))
	for i, d := range devices {
		if err := c.attach(d, first+Reg(i), KindFile); err != nil {
			return err
		}
	}
	for _, l := range [][2]string{{"/dev/fd", "/proc/self/fd"}, {"/dev/stdin", "/proc/self/fd/0"},
		{"/dev/stdout", "/proc/self/fd/1"}, {"/dev/stderr", "/proc/self/fd/2"}, {"/dev/ptmx", "pts/ptmx"}} {
		c.do(OpSymlinkat, l[0], str(l[1]), reg(RegRoot), str(rel(l[0])))
	}
	return nil
}
