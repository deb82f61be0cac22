package plan

import (
	"path"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// ContainerFacts are what the plan of a container has besides Facts.
type ContainerFacts struct {
	// Permitted are the capabilities that the launcher holds, a bit for each: in
	// the namespace of the host nobody can be given others.
	Permitted uint64
	// Processes is the launcher's hard RLIMIT_NPROC, above which only some may raise it.
	Processes uint64
	// Preserve is the number of descriptors from 3 on that the command inherits.
	Preserve int
	// Hooks stops the container when its mounts are made, before pivot_root, until
	// the launcher lets it go on.
	Hooks bool
	// NoCommand: there is nothing to execute yet, so nothing is looked for.
	NoCommand bool
	// AllCapabilities gives the command all that root has here.
	AllCapabilities bool
	// File is executed in place of process.args[0]. Empty: it is not.
	File string
	// FilterFlags are those of linux.seccomp, as seccomp(2) has them.
	FilterFlags uint
	// AppArmor and SELinux say what the kernel enforces. Without SELinux a label of
	// mounts means nothing, and nothing is done with it.
	AppArmor, SELinux bool
	// Shared are namespaces by path that are the launcher's own: what is set in them is set
	// for the host.
	Shared map[specs.LinuxNamespaceType]bool
	// HostUser: the container is in the user namespace of the launcher.
	HostUser bool
	// Nested: that is not the host's. Device nodes are shown there and not made.
	Nested bool
	// NoSetgroups: nobody may leave or enter a group in that namespace (setgroups is
	// denied: user_namespaces(7)).
	NoSetgroups bool
	// GroupsFirst: it is so in the user namespace that is entered alone. What is in a container
	// may have made that, with the right to map its own ids.
	GroupsFirst bool
}

// Container turns an OCI configuration of another orchestrator into a plan: with
// the walls that it has and no others. What it does not support it refuses with
// E2009, by field. The command is process 1 of its pid namespace, if it has one, and
// outlives its launcher.
func Container(s *specs.Spec, f Facts) (*Plan, error) {
	if err := checkContainer(s, f); err != nil {
		return nil, err
	}
	c := foreignCompiler(s, f)
	c.plan.Setup = f.Scratch.begin()
	parts := []func() error{c.joins, c.postpone, c.enter, c.foreignRoot, c.foreignMounts, c.nodes, c.console, c.stopForHooks, c.sysctl, c.protect, c.foreignSeal,
		c.names, c.keyring, c.foreignBound, c.apparmor, c.stdio}
	if pid := namespaceOf(s.Linux, specs.PIDNamespace); pid != nil && pid.Path != "" {
		// What is in that namespace already sees the process as it sees a later one.
		c.plan.BornLast = true
		return c.run(append(parts, c.usher, c.follow)...)
	}
	return c.run(append(parts, c.foreignPayload, c.foreignCommand)...)
}

// Exec makes the plan of one more process in a container: joins are the container's
// namespaces, s is its configuration with the process of the new one.
//
// What is in the container sees the process once it is in the pid namespace, and with
// CAP_SYS_PTRACE in the user namespace of the host it reaches what the process has: its
// root, its working directory, its descriptors, its memory. So all is done before that
// which takes a right or is done to the host, by a process of the launcher's pid
// namespace, and the one that it makes has nothing that the command does not have.
//
// process.scheduler is left to the caller, between the making of the process and its first
// step: it is not always inherited.
func Exec(s *specs.Spec, f Facts, joins []Join) (*Plan, error) {
	if err := checkProcess(s, f); err != nil {
		return nil, err
	}
	c := foreignCompiler(s, f)
	c.exec = true
	for _, j := range joins {
		j.Reg = joinRegs[j.Kind]
		c.plan.Joins = append(c.plan.Joins, j)
	}
	c.out = &c.plan.Before
	// The profile comes first because its file is one of the host's procfs.
	return c.run(c.apparmor, c.enter, c.console, c.keyring, c.foreignBound, c.stdio, c.usher, c.follow)
}

func foreignCompiler(s *specs.Spec, f Facts) *compiler {
	f.NoInit = true
	f.Container.HostUser = !hasUser(s)
	c := &compiler{spec: s, facts: f, plan: &Plan{Tasks: f.Tasks}, dirs: map[string]bool{"/": true}, foreign: true}
	c.caps, _, _ = capabilitiesOf(s.Process) // checked
	if f.Container.HostUser {
		held := f.Container.Permitted
		c.caps.bounding, c.caps.effective, c.caps.inheritable = c.caps.bounding&held, c.caps.effective&held, c.caps.inheritable&held
		c.caps.permitted, c.caps.ambient = c.caps.permitted&held, c.caps.ambient&held
	}
	if f.Container.AllCapabilities {
		all := c.held()
		c.caps = capabilities{bounding: all, effective: all, permitted: all}
	}
	c.out = &c.plan.Setup
	return c
}

func (c *compiler) run(parts ...func() error) (*Plan, error) {
	for _, part := range parts {
		if err := part(); err != nil {
			return nil, err
		}
	}
	if c.facts.Scratch != nil {
		c.facts.Scratch.setup = c.plan.Setup
	}
	return c.plan, c.plan.whole(c.plan.parts()...)
}

// enter is what comes first: the control group, the namespaces that are entered by
// steps, and the ids of root in them.
func (c *compiler) enter() error {
	c.enterGroup()
	if c.exec {
		c.affinity()
	}
	c.field = "process"
	// Before a namespace is entered in which others could look at this process
	// (CVE-2019-5736). execve sets it again.
	c.do(OpPrctl, "", flag(prSetDumpable, "PR_SET_DUMPABLE"), imm(0), imm(0), imm(0), imm(0))
	if c.facts.Container.GroupsFirst {
		c.field = "process.user"
		c.do(OpSetgroups, "", imm(0), imm(0))
	}
	c.field = "linux.namespaces"
	for _, j := range c.plan.Joins {
		if j.Reg != RegNone && j.Reg != RegUserNS {
			c.do(OpSetns, j.Path, reg(j.Reg), flag(int64(j.Kind), cloneNames(j.Kind)))
			c.closeReg(j.Reg)
		}
	}
	for _, j := range c.plan.Joins {
		if j.Reg == RegUserNS { // last: others may belong to the namespace of the host
			c.do(OpSetns, j.Path, reg(j.Reg), flag(int64(j.Kind), cloneNames(j.Kind)))
			c.closeReg(j.Reg)
		}
	}
	c.makeLater()
	if ns := namespaceOf(c.spec.Linux, specs.CgroupNamespace); ns != nil && ns.Path == "" {
		c.do(OpUnshare, "cgroup namespace", flag(CloneNewCgroup, "CLONE_NEWCGROUP"))
	}
	if (c.plan.Clone|c.later)&CloneNewNS != 0 {
		// A new mount namespace of the host's user namespace has the host's mounts as
		// its peers: what is done to one would be done to the other.
		c.field = "linux.rootfsPropagation"
		c.do(OpMount, "/", imm(0), str("/"), imm(0), flag(msRec|msSlave, "MS_REC|MS_SLAVE"), imm(0))
	}
	if c.spec.Root != nil && !c.joined(CloneNewNS) {
		// As the launcher, which may search every directory above it.
		c.chdirRoot()
	}
	c.field = "process.user"
	c.rootIDs()
	c.field = "process.user.umask"
	c.do(OpUmask, "", imm(0))
	return nil
}

// foreignRoot attaches the root and the sources of the binds.
func (c *compiler) foreignRoot() error {
	if err := c.foreignSources(); err != nil {
		return err
	}
	if c.joined(CloneNewNS) {
		c.chdirRoot() // of the namespace that was entered
	}
	c.field = "root.path"
	c.plan.Sources = append(c.plan.Sources, Source{Reg: RegRoot, Path: c.rootDir(), Recursive: true, Propagation: msPrivate, Field: "root.path"})
	c.enterRoot()
	return nil
}

// stopForHooks waits for the launcher, who runs the hooks that come before pivot_root.
func (c *compiler) stopForHooks() error {
	if c.facts.Container.Hooks {
		c.field = "hooks"
		c.say(raw([]byte{1}, "one byte"), 1)
		c.hear()
	}
	return nil
}

// say writes to the launcher, and hear waits for one byte of it.
func (c *compiler) say(what Arg, size int64) {
	c.emit(Step{Op: OpWrite, Args: []Arg{reg(RegSync), what, imm(size)}, Expect: size, Path: "launcher"})
}

func (c *compiler) hear() {
	c.emit(Step{Op: OpRead, Args: []Arg{reg(RegSync), raw(make([]byte, 1), "one byte"), imm(1)}, Expect: 1, Path: "launcher"})
}

// propagation of the root as the last thing that is done to it, for pivot_root
// accepts no shared one.
var rootPropagations = map[string]int64{
	"shared": msShared, "rshared": msShared | msRec, "slave": msSlave, "rslave": msSlave | msRec,
	"private": msPrivate, "rprivate": msPrivate | msRec, "unbindable": msUnbindable, "runbindable": msUnbindable | msRec,
}

// foreignSeal makes read-only what is to be, and leaves the host's tree.
func (c *compiler) foreignSeal() error {
	for _, m := range c.sealed {
		c.field = "mounts"
		c.within(m)
		c.do(OpMountSetattr, m, reg(RegTarget), str(""), flag(atEmptyPath, "AT_EMPTY_PATH"), raw(mountAttr(mountAttrRdonly, 0, 0), "ro"), imm(mountAttrSize))
		c.closeReg(RegTarget)
	}
	c.field = "root.readonly"
	if c.spec.Root.Readonly {
		c.do(OpMountSetattr, "/", reg(RegRoot), str(""), flag(atEmptyPath, "AT_EMPTY_PATH"), raw(mountAttr(mountAttrRdonly, 0, 0), "ro"), imm(mountAttrSize))
	}
	c.leave()
	if p := c.spec.Linux.RootfsPropagation; p != "" {
		c.field = "linux.rootfsPropagation"
		c.do(OpMount, "/", imm(0), str("/"), imm(0), flag(rootPropagations[p], p), imm(0))
	}
	return nil
}

// within opens a path of the new root by descriptor, as the root itself would see
// it: links lead to places inside of it, /proc's own nowhere.
func (c *compiler) within(p string) {
	c.into(RegTarget, OpOpenat2, p, reg(RegRoot), str(rel(p)), raw(openHow(resolveInRoot|resolveNoMagiclinks), "O_PATH, in root"), imm(openHowSize))
}

// strictly is within for what must be no link: /proc and its like, which a
// hostile root would lead elsewhere (CVE-2019-16884, CVE-2023-27561, CVE-2026-41579).
func (c *compiler) strictly(p string) { c.target(path.Clean(p)) }
