package plan

import (
	"encoding/binary"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Versions of Landlock's ABI (landlock(7)), as the kernel counts them.
const (
	// LandlockLeast is the first that is used (Linux 5.19). Before it a file
	// could not be moved to another directory, whatever the rules say.
	LandlockLeast = 2
	// LandlockWhole is the first that has all that is used (Linux 6.12): with
	// less, what it cannot do stands behind its other walls alone.
	LandlockWhole = 6

	landlockTruncate = 3 // Linux 6.2
	landlockNet      = 4 // Linux 6.7
	landlockIoctl    = 5 // Linux 6.10
)

// LANDLOCK_ACCESS_FS_* and LANDLOCK_SCOPE_*.
const (
	fsExecute   = 1 << 0
	fsWriteFile = 1 << 1
	fsReadFile  = 1 << 2
	fsReadDir   = 1 << 3
	fsMakeChar  = 1 << 6
	fsMakeBlock = 1 << 11
	fsRefer     = 1 << 13
	fsTruncate  = 1 << 14
	fsIoctlDev  = 1 << 15

	fsRead   = fsReadFile | fsReadDir
	fsChange = fsWriteFile | fsTruncate
	fsAll    = fsIoctlDev<<1 - 1
	// Nobody makes devices, and those that are there are rules of their own.
	fsFull = fsAll &^ (fsMakeChar | fsMakeBlock | fsExecute | fsIoctlDev)
	// The rights that a rule about a file may have.
	fsOfFile = fsExecute | fsWriteFile | fsReadFile | fsTruncate | fsIoctlDev

	scopeAbstractUnix = 1 << 0
	scopeSignal       = 1 << 1

	rulePathBeneath = 1
)

// rights are what a ruleset of a version handles: what is not among them is
// not restricted.
func handled(version int) uint64 {
	rights := uint64(fsAll)
	if version < landlockTruncate {
		rights &^= fsTruncate
	}
	if version < landlockIoctl {
		rights &^= fsIoctlDev
	}
	return rights
}

// landlock builds the second line behind the mounts: a ruleset with a rule for
// each mount whose rights no rule above it gives. A rule is about a file of the
// sandbox, so it is made when all of them are there, with the ids that made
// them. What no rule is about is out of reach, also through a descriptor. The
// payload's process enters it when it has no privilege left.
//
// TCP is not restricted: without a network there is loopback alone, which
// programs use to talk to themselves, and with it the request asked for all.
func (c *compiler) landlock() error {
	version := c.facts.Landlock
	if version < LandlockLeast {
		return nil
	}
	c.field = "mounts"
	attr := binary.LittleEndian.AppendUint64(nil, handled(version))
	note := "handled: " + rightNames(handled(version))
	if version >= landlockNet {
		attr = binary.LittleEndian.AppendUint64(attr, 0)
	}
	if version >= LandlockWhole {
		attr = binary.LittleEndian.AppendUint64(attr, scopeAbstractUnix|scopeSignal)
		note += "; scoped: abstract unix sockets, signals"
	}
	c.into(RegRuleset, OpLandlockCreateRuleset, "landlock", raw(attr, note), imm(int64(len(attr))), imm(0))
	for _, r := range c.landlockRules() {
		c.field = r.field
		fd := c.ruleReg(r.rights)
		c.into(fd, OpOpenat2, r.path, imm(atFDCWD), str(r.path), raw(openHow(resolveNoSymlinks|resolveNoMagiclinks), "O_PATH, no symlinks"), imm(openHowSize))
		c.do(OpLandlockAddRule, r.path, reg(RegRuleset), flag(rulePathBeneath, "PATH_BENEATH"),
			Arg{Kind: ArgRegs, N: int64(fd - 1), Note: rightNames(r.rights)}, imm(0))
		c.closeReg(fd)
	}
	return nil
}

// restrict enters the ruleset. It needs no_new_privs, and everything of ours
// that a rule could refuse lies behind it.
func (c *compiler) restrict() {
	if c.facts.Landlock < LandlockLeast {
		return
	}
	c.field = "mounts"
	c.do(OpLandlockRestrictSelf, "landlock", reg(RegRuleset), imm(0))
	c.closeReg(RegRuleset)
	c.wall("landlock")
	if c.facts.Landlock < LandlockWhole {
		c.plan.Partial = append(c.plan.Partial, "landlock")
	}
}

// landlockRule gives rights to what lies beneath a path.
type landlockRule struct {
	path   string
	rights uint64
	field  string
}

// landlockRules are the root and the mounts that are not covered by later
// ones, without what their parents have already: rights add up on the way from
// a file to the root, so a mount below a wider one stands behind its flags alone.
func (c *compiler) landlockRules() []landlockRule {
	handles := handled(c.facts.Landlock)
	rules := []landlockRule{{"/", c.rootRights() & handles, "root"}}
	given := map[string]uint64{"/": rules[0].rights}
	hidden := hiddenOf(c.spec.Mounts)
	for i, m := range c.spec.Mounts {
		if hidden[i] {
			continue
		}
		dest, have := path.Clean(m.Destination), uint64(0)
		for dir := range upwards(dest) {
			have |= given[dir]
		}
		rights := c.mountRights(m, dest) & handles
		// A queue is opened in the kernel's own mount of its file system, above
		// which there is no rule (mq_open(3)).
		if rights&^have != 0 || m.Type == "mqueue" {
			rules = append(rules, landlockRule{dest, rights, mountField(i)})
			given[dest] = rights
		}
	}
	return rules
}

// hiddenOf tells of each mount whether a later one lies on it or on a directory above.
func hiddenOf(mounts []specs.Mount) []bool {
	list, later := make([]bool, len(mounts)), make(map[string]bool, len(mounts))
	for i, m := range slices.Backward(mounts) {
		dest := path.Clean(m.Destination)
		for dir := range upwards(dest) {
			list[i] = list[i] || later[dir]
		}
		later[dest] = true
	}
	return list
}

// rootRights are those of the root directory. One that is made of a skeleton
// holds no programs; a directory of the bundle may.
func (c *compiler) rootRights() uint64 {
	if len(c.made) > 0 && c.made[0].fresh {
		if c.spec.Root.Readonly {
			return fsRead
		}
		return fsFull
	}
	if c.spec.Root.Readonly {
		return fsRead | fsExecute
	}
	return fsFull | fsExecute
}

// mountRights are what the options of a mount allow anyway.
func (c *compiler) mountRights(m specs.Mount, dest string) uint64 {
	o, err := parseOptions(m, "")
	if err != nil {
		return 0 // mounts has refused it
	}
	set := o.set | o.setRecursive
	rights := uint64(fsRead)
	writable := set&mountAttrRdonly == 0
	switch {
	case m.Type == "tmpfs" && dest == "/dev":
		// It ends as read-only (see seal); its devices are written, and opened to
		// be controlled.
		return fsRead | fsChange | fsIoctlDev
	case m.Type == "mqueue":
		return fsFull
	case m.Type == "proc", m.Type == "sysfs", m.Type == "devpts":
		// Nothing can be made there.
		if writable {
			rights |= fsChange
		}
	case writable:
		rights |= fsFull
	}
	if set&mountAttrNoexec == 0 {
		rights |= fsExecute
	}
	if set&mountAttrNodev == 0 && o.bind {
		rights |= fsIoctlDev
	}
	if o.bind && c.facts.Kinds[m.Source] == KindFile {
		rights &= fsOfFile
	}
	return rights
}

// ruleReg is the register for the descriptor of a rule with some rights. The one
// before it holds the rights: together they are the rule's struct in memory
// (landlock_path_beneath_attr, little endian on every architecture that is supported).
func (c *compiler) ruleReg(rights uint64) Reg {
	for i, have := range c.plan.Rights {
		if have == rights {
			return RegRule0 + Reg(2*i) + 1
		}
	}
	c.plan.Rights = append(c.plan.Rights, rights)
	return RegRule0 + Reg(2*len(c.plan.Rights)) - 1
}

var rightWords = []string{"execute", "write_file", "read_file", "read_dir", "remove_dir", "remove_file", "make_char", "make_dir",
	"make_reg", "make_sock", "make_fifo", "make_block", "make_sym", "refer", "truncate", "ioctl_dev"}

func rightNames(rights uint64) string {
	var names []string
	for i, name := range rightWords {
		if rights&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}
