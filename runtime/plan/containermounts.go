package plan

import (
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/spec/fault"
)

// within a root that is not ours every path is looked up by the kernel with that root
// as its end (openat2, RESOLVE_IN_ROOT), again for each step, and what is done is done
// to the descriptor. A link that is exchanged meanwhile leads to another place inside
// (CVE-2021-30465).

// superFlags are options of mount(2) that are no attributes of the mount.
var superFlags = map[string]struct{ set, clear uint64 }{
	"sync": {msSynchronous, 0}, "async": {0, msSynchronous}, "dirsync": {msDirsync, 0}, "mand": {msMandlock, 0}, "nomand": {0, msMandlock},
	"silent": {msSilent, 0}, "loud": {0, msSilent}, "iversion": {msIVersion, 0}, "noiversion": {0, msIVersion},
	"lazytime": {msLazytime, 0}, "nolazytime": {0, msLazytime}, "acl": {msPosixACL, 0}, "noacl": {0, msPosixACL},
}

// foreignOptions are the options of a mount, and the flags among them that are none
// of the mount's attributes.
func (c *compiler) foreignOptions(m specs.Mount, field string) (o options, flags uint64, err error) {
	if o, err = parseWords(m, field, true); err != nil {
		return o, 0, err
	}
	o.data = slices.DeleteFunc(o.data, func(option string) bool {
		f, ok := superFlags[option]
		flags = flags&^f.clear | f.set
		return ok
	})
	if o.set&mountAttrNodiratime != 0 {
		flags |= msNodiratime
	}
	o.idmap = o.idmap || len(m.UIDMappings)+len(m.GIDMappings) > 0
	return o, flags, nil
}

// foreignMount is one mount of the configuration.
func (c *compiler) foreignMount(m specs.Mount, bind *Reg) error {
	o, flags, err := c.foreignOptions(m, c.field)
	if err != nil {
		return err
	}
	dest := path.Clean(m.Destination)
	switch {
	case o.bind:
		tree := RegTree
		if c.inOrder(o) {
			c.cloneHere(c.source(RegTree, m.Source, c.field, o), RegFS)
		} else {
			tree = *bind
			*bind++
		}
		c.ensure(dest, c.facts.Kinds[m.Source] == KindDir)
		c.move(dest, tree)
		return nil
	case m.Type == "cgroup" || m.Type == "cgroup2":
		return c.foreignCgroups(dest, m, o, bind)
	}
	if m.Type == "tmpfs" && o.set&mountAttrRdonly != 0 && dest == "/dev" {
		o.set &^= mountAttrRdonly // until it is filled
		c.sealed = append(c.sealed, dest)
	}
	if i := slices.Index(o.data, copyUp); i >= 0 {
		o.data = slices.Delete(o.data, i, i+1)
		c.copyUp(dest, m, o, flags)
		return nil
	}
	if m.Type == "proc" && c.plan.BornLast {
		c.donatedProcfs(dest, o)
		return nil
	}
	c.freshFS(dest, m, o, flags)
	return nil
}

// copyUp is the option of a tmpfs that begins with what it covers.
const copyUp = "tmpcopyup"

// copyUp mounts a tmpfs and gives the launcher the directory below it and the new one, to
// copy one to the other.
func (c *compiler) copyUp(dest string, m specs.Mount, o options, flags uint64) {
	readonly := o.set & mountAttrRdonly
	o.set &^= mountAttrRdonly
	c.ensure(dest, true)
	c.into(RegMaster, OpFcntl, dest, reg(RegTarget), flag(fcntlDupFD, "F_DUPFD_CLOEXEC"), imm(3))
	c.closeReg(RegTarget)
	c.freshFS(dest, m, o, flags)
	c.within(dest)
	c.plan.Copies = append(c.plan.Copies, dest)
	for _, r := range []Reg{RegMaster, RegTarget} {
		c.say(Arg{Kind: ArgRegs, N: int64(r), Note: "number of the directory"}, 8)
		c.hear()
		c.closeReg(r)
	}
	if readonly != 0 {
		c.sealed = append(c.sealed, dest)
	}
}

// inOrder tells whether a bind is made by a step when its turn comes, as the kernel's
// list of mounts then shows. Not where only the launcher can: with ids mapped, in a user
// namespace, and where what is mounted inside is to appear on the host, from whose mounts
// those of the container are cut off.
func (c *compiler) inOrder(o options) bool {
	outward := o.propagation == msShared && strings.HasSuffix(c.spec.Linux.RootfsPropagation, "shared")
	return c.facts.Container.HostUser && !c.joined(CloneNewNS) && !o.idmap && !outward
}

func (c *compiler) foreignMounts() error {
	bind := RegSource0
	for i, m := range c.spec.Mounts {
		c.field = mountField(i)
		if err := c.foreignMount(m, &bind); err != nil {
			return err
		}
	}
	return nil
}

// freshFS mounts a file system that is no bind.
func (c *compiler) freshFS(dest string, m specs.Mount, o options, flags uint64) {
	if special(m.Type) {
		// mkdir makes no way through a link either, so what comes is an error.
		c.ensureBelow(dest, true)
		c.strictly(dest)
	} else {
		c.ensure(dest, true)
	}
	set := o.set | o.setRecursive
	source := m.Source
	if source == "" {
		source = m.Type
	}
	c.do(OpFchdir, dest, reg(RegTarget))
	c.do(OpMount, dest, str(source), str("."), str(m.Type), flag(int64(msFlags(set)|flags), attrNote(set)), str(strings.Join(o.data, ",")))
	c.do(OpFchdir, "/", reg(RegRoot))
	c.closeReg(RegTarget)
	c.propagate(dest, o)
}

// propagate sets the propagation of a mount where it is not the usual one.
func (c *compiler) propagate(dest string, o options) {
	if o.propagation != msPrivate {
		c.within(dest)
		c.do(OpMountSetattr, dest, reg(RegTarget), str(""), flag(atEmptyPath, "AT_EMPTY_PATH"), raw(mountAttr(0, 0, o.propagation), "propagation"), imm(mountAttrSize))
		c.closeReg(RegTarget)
	}
}

// special file systems are those whose place a hostile root must not choose: what
// is done below them is done to the host's kernel.
func special(kind string) bool { return kind == "proc" || kind == "sysfs" || kind == "mqueue" }

// foreignCgroups shows the control groups: by mounts of their own where there is a
// cgroup namespace, whose root is the container's group, else that group itself.
func (c *compiler) foreignCgroups(dest string, m specs.Mount, o options, bind *Reg) error {
	own := namespaceOf(c.spec.Linux, specs.CgroupNamespace) != nil
	if list := c.facts.Hierarchies; len(list) == 0 || list[0].Name == "" { // v2
		if own || len(list) == 0 {
			m.Type, m.Source = "cgroup2", "cgroup"
			c.freshFS(dest, m, o, 0)
			return nil
		}
		c.ensure(dest, true)
		c.move(dest, *bind)
		*bind++
		return nil
	}
	shelf := o
	shelf.set &^= mountAttrRdonly
	shelf.data = []string{"mode=755", "size=65536", "nr_inodes=64"}
	c.freshFS(dest, specs.Mount{Type: "tmpfs", Source: "cgroup"}, shelf, 0)
	for _, h := range c.facts.Hierarchies {
		at := dest + "/" + h.Name
		if !own {
			c.ensure(at, true)
			c.move(at, *bind)
			*bind++
			continue
		}
		one := o
		one.data = []string{h.Options}
		c.freshFS(at, specs.Mount{Type: "cgroup", Source: "cgroup"}, one, 0)
	}
	if o.set&mountAttrRdonly != 0 {
		c.sealed = append(c.sealed, dest)
	}
	return nil
}

// foreignSources are the trees of the binds, in the order in which they are used.
func (c *compiler) foreignSources() error {
	c.next = RegSource0
	for i, m := range c.spec.Mounts {
		o, _, err := c.foreignOptions(m, mountField(i))
		if err != nil {
			return err
		}
		if o.idmap && len(m.UIDMappings) == 0 {
			m.UIDMappings, m.GIDMappings = c.spec.Linux.UIDMappings, c.spec.Linux.GIDMappings
		}
		switch {
		case o.bind && c.inOrder(o):
		case o.bind:
			c.addSource(m.Source, mountField(i), o, m)
		case (m.Type == "cgroup" || m.Type == "cgroup2") && namespaceOf(c.spec.Linux, specs.CgroupNamespace) == nil:
			for _, h := range c.facts.Hierarchies {
				c.addSource(h.Dir, mountField(i), options{set: o.set, propagation: msPrivate}, specs.Mount{})
			}
		}
	}
	if c.bindsNodes() {
		for _, d := range c.allNodes() {
			if d.Type != "p" {
				c.addSource(d.Path, "linux.devices", options{propagation: msPrivate}, specs.Mount{})
			}
		}
	}
	if int(c.next) > RegCount {
		return fault.New(fault.OutOfRange, "compile plan", "more binds than a plan may have").WithField("mounts")
	}
	return nil
}

// move attaches a detached tree at the place in RegTarget.
func (c *compiler) move(dest string, source Reg) {
	c.do(OpMoveMount, dest, reg(source), str(""), reg(RegTarget), str(""), flag(moveMountFEmptyPath|moveMountTEmptyPath, "F_EMPTY_PATH|T_EMPTY_PATH"))
	c.closeReg(RegTarget)
	c.closeReg(source)
}

// ensure opens a mount point in RegTarget and makes it where it is missing.
func (c *compiler) ensure(dest string, dir bool) {
	at := len(*c.out)
	c.within(dest)
	c.ensureBelow(dest, dir)
	c.within(dest)
	(*c.out)[at].Mode, (*c.out)[at].Skip = Prefer, uint8(len(*c.out)-at-1)
}

// ensureBelow makes a path with its parents, each in the descriptor of the one above
// it. What exists stays; what cannot be made is found missing by the next step.
func (c *compiler) ensureBelow(dest string, dir bool) {
	parts := strings.Split(strings.Trim(dest, "/"), "/")
	for i, name := range parts {
		c.parent("/" + strings.Join(parts[:i], "/"))
		if i < len(parts)-1 || dir {
			c.emit(Step{Op: OpMkdirat, Args: []Arg{reg(RegFile), str(name), flag(0o755, "0755")}, Mode: Ignore, Path: dest})
		} else {
			c.emit(Step{Op: OpMknodat, Args: []Arg{reg(RegFile), str(name), flag(modeRegular|0o755, "S_IFREG|0755"), imm(0)}, Mode: Ignore, Path: dest})
		}
		c.closeReg(RegFile)
	}
}

// parent opens a directory of the new root in RegFile.
func (c *compiler) parent(dir string) {
	c.into(RegFile, OpOpenat2, dir, reg(RegRoot), str(rel(dir)), raw(openHow(resolveInRoot|resolveNoMagiclinks), "O_PATH, in root"), imm(openHowSize))
}

// File types of mknod(2).
const (
	modeFIFO    = 0o010000
	modeChar    = 0o020000
	modeBlock   = 0o060000
	modeRegular = 0o100000
)

var nodeTypes = map[string]int64{"c": modeChar, "u": modeChar, "b": modeBlock, "p": modeFIFO}

// defaultNodes are the default devices of the OCI runtime specification.
var defaultNodes = []specs.LinuxDevice{
	{Path: "/dev/null", Type: "c", Major: 1, Minor: 3}, {Path: "/dev/zero", Type: "c", Major: 1, Minor: 5}, {Path: "/dev/full", Type: "c", Major: 1, Minor: 7},
	{Path: "/dev/random", Type: "c", Major: 1, Minor: 8}, {Path: "/dev/urandom", Type: "c", Major: 1, Minor: 9}, {Path: "/dev/tty", Type: "c", Major: 5, Minor: 0},
}

// DefaultDevices are the default devices of the OCI runtime specification, for the
// device rules of a control group.
func DefaultDevices() []specs.LinuxDevice { return slices.Clone(defaultNodes) }

// allNodes are the devices of the configuration, and the default ones where /dev is
// not another's.
func (c *compiler) allNodes() []specs.LinuxDevice {
	if c.foreignDev() {
		return nil
	}
	// /dev/ptmx is a link to that of the container's own devpts, whatever is asked for.
	all := slices.DeleteFunc(slices.Clone(c.spec.Linux.Devices), func(d specs.LinuxDevice) bool { return path.Clean(d.Path) == "/dev/ptmx" })
	for _, d := range defaultNodes {
		if !slices.ContainsFunc(all, func(o specs.LinuxDevice) bool { return path.Clean(o.Path) == d.Path }) {
			all = append(all, d)
		}
	}
	return all
}

// foreignDev tells whether /dev is a bind: nothing is made in what is not the
// container's own.
func (c *compiler) foreignDev() bool {
	return slices.ContainsFunc(c.spec.Mounts, func(m specs.Mount) bool {
		o, err := parseWords(m, "", true)
		return err == nil && o.bind && path.Clean(m.Destination) == "/dev"
	})
}

// bindsNodes tells whether devices of the host are shown in place of nodes.
func (c *compiler) bindsNodes() bool { return !c.facts.Container.HostUser || c.facts.Container.Nested }

// nodes fills /dev. A user namespace may not make device nodes, so there the host's
// are bound; elsewhere they are made, and one that exists already is an error: it
// would have to be trusted.
func (c *compiler) nodes() error {
	if c.foreignDev() {
		return nil
	}
	bind := c.next
	all := c.allNodes()
	if c.bindsNodes() {
		for _, d := range all {
			if d.Type != "p" {
				bind--
			}
		}
	}
	for _, d := range all {
		c.field = "linux.devices"
		p := path.Clean(d.Path)
		if c.bindsNodes() && d.Type != "p" {
			c.ensure(p, false)
			c.move(p, bind)
			bind++
			continue
		}
		c.node(p, d)
	}
	mode := Must
	if !c.hasDev() {
		mode = Ignore // the root's own /dev may have them
	}
	c.ensureBelow("/dev", true)
	c.strictly("/dev")
	for _, l := range [][2]string{{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"}, {"ptmx", "pts/ptmx"}} {
		c.emit(Step{Op: OpSymlinkat, Args: []Arg{str(l[1]), reg(RegTarget), str(l[0])}, Mode: mode, Path: "/dev/" + l[0]})
	}
	c.closeReg(RegTarget)
	return nil
}

func (c *compiler) node(p string, d specs.LinuxDevice) {
	mode := int64(0o666)
	if d.FileMode != nil {
		mode = int64(d.FileMode.Perm())
	}
	dir := path.Dir(p)
	c.ensureBelow(dir, true)
	if path.Dir(p) == "/dev" {
		c.strictly(dir)
	} else {
		c.within(dir)
	}
	dev := int64(0)
	if d.Type != "p" {
		dev = deviceNumber(d.Major, d.Minor)
	}
	exists := Must
	if !c.hasDev() && !slices.ContainsFunc(c.spec.Linux.Devices, func(o specs.LinuxDevice) bool { return path.Clean(o.Path) == p }) {
		exists = Ignore // a root that is used again has the default ones
	}
	c.emit(Step{Op: OpMknodat, Args: []Arg{reg(RegTarget), str(path.Base(p)), flag(nodeTypes[d.Type]|mode, d.Type), imm(dev)}, Mode: exists, Path: p})
	if owner := [2]int64{idOf(d.UID), idOf(d.GID)}; owner != [2]int64{} {
		c.do(OpFchownat, p, reg(RegTarget), str(path.Base(p)), imm(owner[0]), imm(owner[1]), flag(atSymlinkNofollow, "AT_SYMLINK_NOFOLLOW"))
	}
	c.closeReg(RegTarget)
}

func idOf(id *uint32) int64 {
	if id == nil {
		return 0
	}
	return int64(*id)
}

// deviceNumber is the kernel's encoding, which mknod(2) takes (new_encode_dev).
func deviceNumber(major, minor int64) int64 {
	return minor&0xff | (major&0xfff)<<8 | (minor&^0xff)<<12
}

// cover masks a path, whatever is there: a directory with an empty one, a file with
// /dev/null. What is missing needs no cover.
func (c *compiler) cover(p string) {
	look := func(name string) int {
		at := len(*c.out)
		c.into(RegTarget, OpOpenat2, p, reg(RegRoot), str(name), raw(openHow(resolveInRoot|resolveNoMagiclinks), "O_PATH, in root"), imm(openHowSize))
		return at
	}
	skip := func(at int, mode Mode) { (*c.out)[at].Mode, (*c.out)[at].Skip = mode, uint8(len(*c.out)-at-1) }
	dir := look(rel(p) + "/.") // ENOTDIR for a file
	c.do(OpFchdir, p, reg(RegTarget))
	c.do(OpMount, p, str("tmpfs"), str("."), str("tmpfs"), flag(msRdonly|msNosuid|msNodev|msNoexec, "ro,nosuid,nodev,noexec"), str("size=4k,nr_inodes=2,mode=0555"))
	c.do(OpFchdir, "/", reg(RegRoot))
	c.closeReg(RegTarget)
	done := len(*c.out)
	c.do(OpFchdir, "/", reg(RegRoot)) // succeeds, and so the file's steps are passed over
	skip(dir, Probe)
	file := look(rel(p))
	// Looked up inside, and no link: a root's own /dev may hold anything (CVE-2025-31133).
	c.into(RegFile, OpOpenat2, "/dev/null", reg(RegRoot), str("dev/null"),
		raw(openHow(resolveInRoot|resolveNoSymlinks|resolveNoMagiclinks), "O_PATH, in root, no symlinks"), imm(openHowSize))
	c.into(RegTree, OpOpenTree, p, reg(RegFile), str(""), flag(openTreeClone|oCloexec|atEmptyPath, "OPEN_TREE_CLONE"))
	c.closeReg(RegFile)
	c.do(OpMoveMount, p, reg(RegTree), str(""), reg(RegTarget), str(""), flag(moveMountFEmptyPath|moveMountTEmptyPath, "F_EMPTY_PATH|T_EMPTY_PATH"))
	c.closeReg(RegTarget)
	c.closeReg(RegTree)
	skip(file, Probe)
	skip(done, Prefer)
}

// protect masks and makes read-only what the configuration says. It comes after all
// mounts, because a later mount would uncover it.
func (c *compiler) protect() error {
	c.field = "linux.maskedPaths"
	for _, p := range c.spec.Linux.MaskedPaths {
		c.cover(path.Clean(p))
	}
	c.field = "linux.readonlyPaths"
	for _, p := range c.spec.Linux.ReadonlyPaths {
		at := len(*c.out)
		c.within(path.Clean(p))
		c.into(RegTree, OpOpenTree, p, reg(RegTarget), str(""), flag(openTreeClone|oCloexec|atEmptyPath|atRecursive, "OPEN_TREE_CLONE|AT_RECURSIVE"))
		c.do(OpMountSetattr, p, reg(RegTree), str(""), flag(atEmptyPath|atRecursive, "AT_RECURSIVE"), raw(mountAttr(mountAttrRdonly, 0, 0), "ro"), imm(mountAttrSize))
		c.do(OpMoveMount, p, reg(RegTree), str(""), reg(RegTarget), str(""), flag(moveMountFEmptyPath|moveMountTEmptyPath, "F_EMPTY_PATH|T_EMPTY_PATH"))
		c.closeReg(RegTree)
		c.closeReg(RegTarget)
		(*c.out)[at].Mode, (*c.out)[at].Skip = Probe, uint8(len(*c.out)-at-1)
	}
	return nil
}
