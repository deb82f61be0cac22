package plan

import (
	"encoding/binary"
	"encoding/json"
	"iter"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/spec/fault"
)

// Compile turns an OCI configuration into a launch plan. It refuses with
// E2009 what it does not support, by field, and never passes a field over.
func Compile(s *specs.Spec, f Facts) (*Plan, error) {
	if err := check(s, f); err != nil {
		return nil, err
	}
	c := &compiler{spec: s, facts: f, plan: &Plan{Tasks: f.Tasks, HasInit: !f.NoInit}, dirs: map[string]bool{"/": true}}
	c.caps, _, _ = capabilitiesOf(s.Process) // checked
	c.plan.Setup = make([]Step, 0, usualSteps)
	c.out = &c.plan.Setup
	for _, part := range []func() error{
		c.namespaces, c.join, c.root, c.mounts, c.sysctl, c.protectProc, c.seal, c.names, c.keyring, c.bound, c.stdio, c.landlock, c.payload, c.command, c.init,
	} {
		if err := part(); err != nil {
			return nil, err
		}
	}
	return c.plan, c.plan.whole(c.plan.parts()...)
}

// parts are the steps of each process.
func (p *Plan) parts() [][]Step { return [][]Step{p.Before, p.Setup, p.Payload, p.Command, p.Init} }

// whole refuses a plan with too many steps, and a NUL in what the kernel takes as a text
// in some of them: it would take a part for the whole.
func (p *Plan) whole(parts ...[]Step) error {
	if n := len(p.Before) + len(p.Setup) + len(p.Payload) + len(p.Command) + len(p.Init); n > MaxSteps {
		return fault.New(fault.InvalidBundle, "compile plan", "more steps than a plan may have").WithField("mounts")
	}
	for _, steps := range parts {
		for i := range steps {
			for k, a := range steps[i].Args {
				if (a.Kind != ArgString || strings.IndexByte(a.S, 0) < 0) && !slices.ContainsFunc(a.Vec, func(s string) bool { return strings.IndexByte(s, 0) >= 0 }) {
					continue
				}
				field := steps[i].Field
				if a.Kind == ArgVector && k == 2 { // of execve
					field = "process.env"
				}
				return fault.New(fault.InvalidBundle, "compile plan", "has a NUL").WithField(field)
			}
		}
	}
	return nil
}

// compiler holds the state of one Compile.
type compiler struct {
	spec  *specs.Spec
	facts Facts
	caps  capabilities
	plan  *Plan
	out   *[]Step
	field string
	// made are the mounts so far, in order, and newest the place there of the last at a
	// destination; dirs what exists in fresh trees.
	made   []madeMount
	newest map[string]int
	dirs   map[string]bool
	next   Reg // next free source register
	// foreign: the walls are those of the configuration, and the root is not ours.
	foreign bool
	// exec: the plan is that of a later process.
	exec bool
	// later are the namespaces that a step makes and not the clone, sealed the mounts
	// that become read-only when they are filled.
	later  uint64
	sealed []string
	args   []Arg // of the last steps, with room for those of the next
}

// What a sandbox with the usual walls takes and some binds more, so that it is one
// allocation each, and the next size for more.
const (
	usualSteps = 384
	usualArgs  = 384
)

// madeMount is a mount of the sandbox. In a fresh one we may create entries:
// nothing hostile can be in it.
type madeMount struct {
	dest  string
	fresh bool
}

func (c *compiler) emit(s Step) {
	if s.Field == "" {
		s.Field = c.field
	}
	*c.out = append(*c.out, s)
}

// do emits a step that must succeed.
func (c *compiler) do(op Op, path string, args ...Arg) {
	c.emit(Step{Op: op, Args: c.keep(args), Path: path})
}

func (c *compiler) into(r Reg, op Op, path string, args ...Arg) {
	c.emit(Step{Op: op, Args: c.keep(args), Path: path, Result: r})
}

// keep copies the arguments of a step to where those of many lie together.
func (c *compiler) keep(args []Arg) []Arg {
	n := len(c.args)
	if n+len(args) > cap(c.args) {
		n, c.args = 0, c.facts.Scratch.block(len(args))
	}
	c.args = append(c.args, args...)
	return c.args[n:len(c.args):len(c.args)]
}

// closeReg closes a descriptor early so that a plan with 200 binds stays far
// from the descriptor limit.
func (c *compiler) closeReg(r Reg) {
	c.emit(Step{Op: OpClose, Args: c.keep([]Arg{reg(r)}), Mode: Ignore})
}

func (c *compiler) wall(name string) { c.plan.Walls = append(c.plan.Walls, name) }

// namespaces decides what the first process is born into.
func (c *compiler) namespaces() error {
	names := map[specs.LinuxNamespaceType]struct {
		flag uint64
		wall string
	}{
		specs.UserNamespace:    {CloneNewUser, "user_namespace"},
		specs.MountNamespace:   {CloneNewNS, "mount_namespace"},
		specs.PIDNamespace:     {CloneNewPID, "pid_namespace"},
		specs.IPCNamespace:     {CloneNewIPC, "ipc_namespace"},
		specs.UTSNamespace:     {CloneNewUTS, "uts_namespace"},
		specs.NetworkNamespace: {CloneNewNet, "network_namespace"},
		specs.TimeNamespace:    {CloneNewTime, "time_namespace"},
	}
	for _, ns := range c.spec.Linux.Namespaces {
		if ns.Type == specs.CgroupNamespace {
			continue // entered by unshare once the process is in its cgroup
		}
		n := names[ns.Type]
		c.plan.Clone |= n.flag
		c.wall(n.wall)
	}
	c.plan.UIDMap = idmaps(c.spec.Linux.UIDMappings)
	c.plan.GIDMap = idmaps(c.spec.Linux.GIDMappings)
	c.plan.DenySetgroups = c.facts.Rootless
	return nil
}

func idmaps(in []specs.LinuxIDMapping) []IDMap {
	var out []IDMap
	for _, m := range in {
		out = append(out, IDMap{Inside: m.ContainerID, Outside: m.HostID, Size: m.Size})
	}
	return out
}

// join waits for the id maps, enters the cgroup and takes the ids of the
// namespace's root.
func (c *compiler) join() error {
	c.enterGroup()
	for _, ns := range c.spec.Linux.Namespaces {
		if ns.Type == specs.CgroupNamespace {
			c.field = "linux.namespaces"
			// Here and not at the clone: the namespace's root is the cgroup of
			// the calling process, and clone would take the launcher's.
			c.do(OpUnshare, "cgroup namespace", flag(CloneNewCgroup, "CLONE_NEWCGROUP"))
			c.wall("cgroup_namespace")
		}
	}
	if !c.facts.Rootless {
		// The first step as host uid 0 may still search the 0700 directories
		// above the mount point; after setresuid nothing of the host's is ours.
		c.chdirRoot()
		c.field = "linux.uidMappings"
		c.rootIDs()
	}
	c.field = "process.umask"
	c.do(OpUmask, "", imm(0))
	return nil
}

// enterGroup waits for the id maps and enters the cgroup.
func (c *compiler) enterGroup() {
	c.field = "linux.uidMappings"
	c.emit(Step{Op: OpRead, Args: []Arg{reg(RegSync), raw(make([]byte, 1), "one byte"), imm(1)}, Expect: 1, Path: "id maps"})
	c.field = "linux.cgroupsPath"
	for i := 0; i < c.facts.Tasks; i++ {
		// "0" is the writing task itself: no RCU wait, unlike another's pid.
		c.emit(Step{Op: OpWrite, Args: []Arg{reg(RegTasks0 + Reg(i)), raw([]byte("0"), `"0"`), imm(1)}, Expect: 1, Path: "cgroup tasks"})
		c.closeReg(RegTasks0 + Reg(i))
	}
}

// rootIDs takes the ids of the namespace's root, before any file is made: an unmapped fsuid
// gets EOVERFLOW.
func (c *compiler) rootIDs() {
	c.do(OpSetresgid, "", imm(0), imm(0), imm(0))
	if !c.facts.Container.NoSetgroups && !c.facts.Container.GroupsFirst {
		c.do(OpSetgroups, "", imm(0), imm(0))
	}
	c.do(OpSetresuid, "", imm(0), imm(0), imm(0))
}

// chdirRoot enters the directory over which the new root is mounted.
func (c *compiler) chdirRoot() {
	c.field = "root.path"
	c.do(OpChdir, c.rootDir(), str(c.rootDir()))
}

func (c *compiler) rootDir() string {
	p := c.spec.Root.Path
	if !path.IsAbs(p) {
		p = path.Join(c.facts.BundleDir, p)
	}
	return p
}

// root makes the new root: a tmpfs filled from the skeleton annotation, or a
// bind of the bundle's own directory.
func (c *compiler) root() error {
	if c.facts.Rootless {
		// Sources first, while the host's paths still mean the host's files.
		if err := c.sources(); err != nil {
			return err
		}
		c.chdirRoot()
	} else if err := c.sources(); err != nil {
		return err
	}
	c.wall("rootfs")
	text, ok := c.spec.Annotations[AnnotationSkeleton]
	if !ok {
		c.mounted("/", false)
		return c.bindRoot()
	}
	var sk Skeleton
	if c.facts.Skeleton != nil {
		sk = *c.facts.Skeleton
	} else if err := json.Unmarshal([]byte(text), &sk); err != nil {
		return fault.Wrap(fault.InvalidBundle, "decode skeleton", err).WithField("annotations." + AnnotationSkeleton)
	}
	c.mounted("/", true)
	c.tmpfsRoot(sk)
	return c.fill(sk)
}

// tmpfsRoot mounts a small tmpfs over the current directory and enters it.
func (c *compiler) tmpfsRoot(sk Skeleton) {
	size, inodes := sk.SizeBytes, sk.Inodes
	if size == 0 {
		size = 1 << 20
	}
	if inodes == 0 {
		inodes = 4096
	}
	c.field = "root"
	c.into(RegFS, OpFsopen, "tmpfs", str("tmpfs"), flag(fsopenCloexec, "FSOPEN_CLOEXEC"))
	for _, kv := range [][2]string{{"size", itoa(size)}, {"nr_inodes", itoa(inodes)}, {"mode", "0755"}} {
		c.do(OpFsconfig, "tmpfs", reg(RegFS), flag(fsconfigSetString, "FSCONFIG_SET_STRING"), str(kv[0]), str(kv[1]), imm(0))
	}
	c.do(OpFsconfig, "tmpfs", reg(RegFS), flag(fsconfigCmdCreate, "FSCONFIG_CMD_CREATE"), imm(0), imm(0), imm(0))
	c.into(RegRoot, OpFsmount, "tmpfs", reg(RegFS), flag(fsmountCloexec, "FSMOUNT_CLOEXEC"), flag(mountAttrNosuid|mountAttrNodev, "nosuid,nodev"))
	c.closeReg(RegFS)
	c.enterRoot()
}

// enterRoot attaches the mount in RegRoot over the current directory and makes
// it the current directory.
func (c *compiler) enterRoot() {
	// An empty path, not ".": that would ask for search permission in a 0700 directory.
	c.do(OpMoveMount, "/", reg(RegRoot), str(""), imm(atFDCWD), str(""), flag(moveMountFEmptyPath|moveMountTEmptyPath, "F_EMPTY_PATH|T_EMPTY_PATH"))
	c.do(OpFchdir, "/", reg(RegRoot))
}

// bindRoot uses a directory of the bundle as root.
func (c *compiler) bindRoot() error {
	c.field = "root.path"
	if c.facts.Rootless {
		c.into(RegRoot, OpOpenTree, c.rootDir(), imm(atFDCWD), str("."), flag(openTreeClone|oCloexec|atRecursive, "OPEN_TREE_CLONE|AT_RECURSIVE|CLOEXEC"))
		c.do(OpMountSetattr, c.rootDir(), reg(RegRoot), str(""), flag(atEmptyPath|atRecursive, "AT_EMPTY_PATH|AT_RECURSIVE"),
			raw(mountAttr(mountAttrNosuid|mountAttrNodev, 0, msPrivate), "nosuid,nodev,private"), imm(mountAttrSize))
	} else {
		// The launcher's clone of it, so that an unreadable parent is no obstacle.
		c.plan.Sources = append(c.plan.Sources, Source{Reg: RegRoot, Path: c.rootDir(), Recursive: true,
			Set: mountAttrNosuid | mountAttrNodev, Propagation: msPrivate, Field: "root.path",
			UIDMap: c.facts.RootUIDMap, GIDMap: c.facts.RootGIDMap})
	}
	c.enterRoot()
	return nil
}

// fill makes the skeleton's entries.
func (c *compiler) fill(sk Skeleton) error {
	c.field = "annotations." + AnnotationSkeleton
	if err := c.checkSkeleton(sk); err != nil {
		return err
	}
	for _, d := range sk.Directories {
		if err := c.mkdirs(d); err != nil {
			return err
		}
	}
	for _, l := range sk.Symlinks {
		if err := c.mkdirs(path.Dir(l.Path)); err != nil {
			return err
		}
		c.do(OpSymlinkat, l.Path, str(l.Target), reg(RegRoot), str(rel(l.Path)))
	}
	for _, f := range sk.Files {
		if err := c.mkdirs(path.Dir(f.Path)); err != nil {
			return err
		}
		c.create(f.Path)
		if f.Content != "" {
			c.emit(Step{Op: OpWrite, Args: []Arg{reg(RegFile), raw([]byte(f.Content), quoteShort(f.Content)), imm(int64(len(f.Content)))},
				Expect: int64(len(f.Content)), Path: f.Path})
		}
		c.closeReg(RegFile)
	}
	return nil
}

// checkSkeleton refuses paths that would leave the new root, which a bundle from
// elsewhere may have: they are made relative to it, before pivot_root.
func (c *compiler) checkSkeleton(sk Skeleton) error {
	paths := append([]string(nil), sk.Directories...)
	for _, l := range sk.Symlinks {
		paths = append(paths, l.Path)
	}
	for _, f := range sk.Files {
		paths = append(paths, f.Path)
	}
	for _, p := range paths {
		if !path.IsAbs(p) || path.Clean(p) != p || p == "/" || strings.IndexByte(p, 0) >= 0 {
			return fault.New(fault.InvalidBundle, "compile plan", "is not an absolute, clean path below /").WithField(c.field).WithPath(p)
		}
	}
	return nil
}

// create makes an empty regular file in a fresh tree and leaves it in RegFile.
func (c *compiler) create(p string) {
	c.into(RegFile, OpOpenat, p, reg(RegRoot), str(rel(p)), flag(oWronly|oCreat|oExcl|oCloexec, "O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC"), flag(0o644, "0644"))
}

// mkdirs makes a directory and its parents where they lie in fresh trees.
func (c *compiler) mkdirs(dir string) error {
	if c.dirs[dir] {
		return nil
	}
	if !c.fresh(dir) {
		return nil // must exist in the bound tree; openat2 of the target tells
	}
	if err := c.mkdirs(path.Dir(dir)); err != nil {
		return err
	}
	c.do(OpMkdirat, dir, reg(RegRoot), str(rel(dir)), flag(0o755, "0755"))
	c.dirs[dir] = true
	return nil
}

// mounted notes a mount.
func (c *compiler) mounted(dest string, fresh bool) {
	if c.newest == nil {
		c.newest = map[string]int{}
	}
	c.newest[dest] = len(c.made)
	c.made = append(c.made, madeMount{dest, fresh})
}

// fresh tells whether the tree that will hold p was made by this plan: the last
// mount at p or above it is the one that is seen there.
func (c *compiler) fresh(p string) bool {
	last := -1
	for dir := range upwards(p) {
		if i, ok := c.newest[dir]; ok {
			last = max(last, i)
		}
	}
	return last >= 0 && c.made[last].fresh
}

// upwards yields an absolute, clean path and the directories above it. To look for
// those costs the same however many mounts there are.
func upwards(p string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for yield(p) && len(p) > 1 {
			p = p[:max(1, strings.LastIndexByte(p, '/'))]
		}
	}
}

// rel is a sandbox path relative to RegRoot.
func rel(p string) string {
	if p == "/" {
		return "."
	}
	return strings.TrimPrefix(p, "/")
}

const mountAttrSize = 32

// mountAttr is struct mount_attr: attr_set, attr_clr, propagation, userns_fd.
func mountAttr(set, clr, propagation uint64) []byte {
	b := make([]byte, 0, mountAttrSize)
	for _, v := range []uint64{set, clr, propagation, 0} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}
