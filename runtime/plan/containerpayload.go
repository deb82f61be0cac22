package plan

import (
	"encoding/binary"
	"path"
	"sort"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// console makes a terminal in the container's own devpts and lets the launcher fetch
// its master. Everything is done to descriptors that the kernel made: no name below
// /dev/pts is looked up (CVE-2025-52565).
func (c *compiler) console() error {
	if !c.spec.Process.Terminal {
		return nil
	}
	c.field = "process.terminal"
	root, lookup := reg(RegRoot), uint64(resolveInRoot|resolveNoSymlinks|resolveNoMagiclinks)
	if c.joined(CloneNewNS) && len(c.plan.Sources) == 0 {
		// A process that comes later stands in the container's root already.
		root, lookup = imm(atFDCWD), resolveNoSymlinks|resolveNoMagiclinks
		c.do(OpChdir, "/", str("/"))
	}
	c.into(RegMaster, OpOpenat2, "/dev/pts/ptmx", root, str("dev/pts/ptmx"), raw(openHowTo(oRdwr|oNoctty, lookup), "O_RDWR|O_NOCTTY, in root, no symlinks"), imm(openHowSize))
	c.do(OpIoctl, "/dev/pts/ptmx", reg(RegMaster), flag(tiocSPTLock, "TIOCSPTLCK"), raw(make([]byte, 4), "unlock"))
	c.into(RegSlave, OpIoctl, "/dev/pts", reg(RegMaster), flag(tiocGPTPeer, "TIOCGPTPEER"), flag(oRdwr|oNoctty|oCloexec, "O_RDWR|O_NOCTTY|O_CLOEXEC"))
	c.do(OpFchownat, "/dev/pts", reg(RegSlave), str(""), imm(int64(c.spec.Process.User.UID)), imm(0xffffffff), flag(atEmptyPath, "AT_EMPTY_PATH"))
	if len(c.plan.Sources) > 0 {
		c.ensure("/dev/console", false)
		c.into(RegTree, OpOpenTree, "/dev/pts", reg(RegSlave), str(""), flag(openTreeClone|oCloexec|atEmptyPath, "OPEN_TREE_CLONE"))
		c.move("/dev/console", RegTree)
	}
	c.say(Arg{Kind: ArgRegs, N: int64(RegMaster), Note: "number of the terminal"}, 8)
	c.hear()
	c.closeReg(RegMaster)
	return nil
}

// sysctl writes kernel parameters through a procfs of its own, which no mount of the
// configuration can stand in front of (CVE-2025-52881).
func (c *compiler) sysctl() error {
	if len(c.spec.Linux.Sysctl) == 0 {
		return nil
	}
	c.field = "linux.sysctl"
	c.procfs()
	keys := make([]string, 0, len(c.spec.Linux.Sysctl))
	for k := range c.spec.Linux.Sysctl {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		file, value := sysctlFile(k), c.spec.Linux.Sysctl[k]
		c.into(RegFile, OpOpenat2, file, reg(RegTree), str(file), raw(openHowTo(oWronly, resolveBeneath|resolveNoXdev|resolveNoSymlinks), "O_WRONLY, beneath"), imm(openHowSize))
		c.emit(Step{Op: OpWrite, Args: []Arg{reg(RegFile), raw([]byte(value), quoteShort(value)), imm(int64(len(value)))}, Expect: int64(len(value)), Path: file,
			Field: "linux.sysctl." + k})
		c.closeReg(RegFile)
	}
	c.closeReg(RegTree)
	return nil
}

// procfs makes a procfs of the process' own in RegTree.
func (c *compiler) procfs() {
	c.into(RegFS, OpFsopen, "proc", str("proc"), flag(fsopenCloexec, "FSOPEN_CLOEXEC"))
	c.do(OpFsconfig, "proc", reg(RegFS), flag(fsconfigCmdCreate, "FSCONFIG_CMD_CREATE"), imm(0), imm(0), imm(0))
	c.into(RegTree, OpFsmount, "proc", reg(RegFS), flag(fsmountCloexec, "FSMOUNT_CLOEXEC"), flag(mountAttrNosuid|mountAttrNodev|mountAttrNoexec, "nosuid,nodev,noexec"))
	c.closeReg(RegFS)
}

// apparmor makes execve enter the profile: aa_change_onexec(2).
func (c *compiler) apparmor() error {
	profile := c.spec.Process.ApparmorProfile
	if profile == "" {
		return nil
	}
	c.field = "process.apparmorProfile"
	c.procfs()
	const file = "thread-self/attr/apparmor/exec" // Linux 5.8
	// thread-self is a link, and one of procfs' own kind that leads nowhere else.
	c.into(RegFile, OpOpenat2, file, reg(RegTree), str(file), raw(openHowTo(oWronly, resolveBeneath|resolveNoXdev), "O_WRONLY, beneath"), imm(openHowSize))
	words := "exec " + profile
	c.emit(Step{Op: OpWrite, Args: []Arg{reg(RegFile), raw([]byte(words), quoteShort(words)), imm(int64(len(words)))}, Expect: int64(len(words)), Path: profile})
	c.closeReg(RegFile)
	c.closeReg(RegTree)
	return nil
}

// sysctlFile is the file below /proc of a parameter: dots are slashes and slashes
// dots, as sysctl(8) has it.
func sysctlFile(key string) string {
	return "sys/" + strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, key)
}

// foreignBound takes the bounding set down to what the configuration has.
func (c *compiler) foreignBound() error {
	c.field = "process.capabilities.bounding"
	last := c.facts.LastCap
	if last == 0 {
		last = capLastDefault
	}
	for i := 0; i <= last; i++ {
		if c.caps.bounding&(1<<i) == 0 {
			c.do(OpPrctl, "", flag(prCapbsetDrop, "PR_CAPBSET_DROP"), imm(int64(i)), imm(0), imm(0), imm(0))
		}
	}
	return nil
}

// session makes a session of the process' own, with its terminal if it has one.
func (c *compiler) session() {
	c.field = "process"
	c.do(OpSetsid, "")
	if c.spec.Process.Terminal {
		c.field = "process.terminal"
		c.do(OpIoctl, "terminal", imm(0), flag(tiocSCTTY, "TIOCSCTTY"), imm(0))
	}
}

// become takes the ids of the command and its directory, and keeps what capabilities
// there are for the rest.
func (c *compiler) become() {
	c.field = "process.capabilities"
	c.do(OpPrctl, "", flag(prSetKeepcaps, "PR_SET_KEEPCAPS"), imm(1), imm(0), imm(0), imm(0)) // execve clears it
	c.identity()
	held := c.held()
	c.take(capabilities{effective: held, permitted: held})
	c.directory()
}

// foreignPayload becomes the user of the command and waits at the gate.
func (c *compiler) foreignPayload() error {
	c.out = &c.plan.Payload
	c.session()
	c.become()
	// The sandbox outlives its launcher from here on.
	c.field = "process"
	c.do(OpPrctl, "", flag(prSetPdeathsig, "PR_SET_PDEATHSIG"), imm(0), imm(0), imm(0), imm(0))
	if err := c.findCommand(); err != nil {
		return err
	}
	if c.listens() {
		// While the launcher is there to hand the listener on.
		if err := c.restrain(); err != nil {
			return err
		}
	}
	c.gate()
	return nil
}

// gate waits for whoever starts the container.
func (c *compiler) gate() {
	c.field = "process"
	c.say(raw([]byte{1}, "one byte"), 1)
	c.into(RegFile, OpAccept4, "gate", reg(RegGate), imm(0), imm(0), flag(oCloexec, "SOCK_CLOEXEC"))
	// What goes wrong from here on is reported to whoever came; execve ends the line.
	c.do(OpDup3, "gate", reg(RegFile), reg(RegSync), flag(oCloexec, "O_CLOEXEC"))
	c.closeReg(RegFile)
	c.closeReg(RegGate)
}

// held are the capabilities that root has here before it gives some up.
func (c *compiler) held() uint64 {
	if c.facts.Container.HostUser {
		return c.facts.Container.Permitted
	}
	last := c.facts.LastCap
	if last == 0 {
		last = capLastDefault
	}
	return 1<<(last+1) - 1
}

// findCommand fails where no file of those that execve will be tried on can be executed:
// a caller learns of that when it creates the container.
func (c *compiler) findCommand() error {
	if c.facts.Container.NoCommand {
		return nil
	}
	candidates, err := c.files()
	if err != nil {
		return err
	}
	c.field = "process.args"
	for i, file := range candidates {
		s := Step{Op: OpFaccessat, Args: []Arg{imm(atFDCWD), str(file), flag(1, "X_OK"), imm(0)}, Path: file}
		if i < len(candidates)-1 {
			s.Mode, s.Skip = Prefer, uint8(len(candidates)-1-i)
		}
		c.emit(s)
	}
	return nil
}

func (c *compiler) files() ([]string, error) {
	if f := c.facts.Container.File; f != "" {
		return []string{f}, nil
	}
	return c.candidates()
}

// foreignCommand sets the limits and gives up the rest.
func (c *compiler) foreignCommand() error {
	c.out = &c.plan.Command
	if !c.listens() {
		if err := c.restrain(); err != nil {
			return err
		}
	}
	return c.execute()
}

// restrain sets the limits and gives up the rest. A filter that needs no capability comes last.
func (c *compiler) restrain() error {
	if err := c.rlimits(); err != nil {
		return err
	}
	c.scheduler()
	c.scheduling()
	c.lower()
	if c.spec.Process.NoNewPrivileges {
		c.foreignFilter()
	}
	return nil
}

// FilterListener is SECCOMP_FILTER_FLAG_NEW_LISTENER.
const FilterListener = 1 << 3

// listens tells whether the filter has notifications.
func (c *compiler) listens() bool { return c.facts.Container.FilterFlags&FilterListener != 0 }

// lower takes the command's capabilities, with the filter where it is loaded before
// them: one without no_new_privs needs a capability, and so binds the calls that come
// after it.
func (c *compiler) lower() {
	keep := int64(c.facts.Container.Preserve)
	c.do(OpCloseRange, "", imm(3+keep), flag(0xffffffff, "~0"), flag(closeRangeCloexec, "CLOSE_RANGE_CLOEXEC"))
	for fd := int64(3); fd < 3+keep; fd++ {
		c.do(OpFcntl, "", imm(fd), flag(fcntlSetFD, "F_SETFD"), imm(0))
	}
	if c.spec.Process.NoNewPrivileges {
		c.take(c.caps)
		c.noNewPrivs()
	} else {
		c.foreignFilter()
		c.take(c.caps)
	}
}

func (c *compiler) execute() error {
	candidates, err := c.files()
	if err != nil {
		return err
	}
	p := c.spec.Process
	c.field = "process.args"
	for _, file := range candidates {
		c.emit(Step{Op: OpExecve, Args: []Arg{str(file), vector(p.Args), vector(p.Env)}, Mode: Try, Path: file})
	}
	return nil
}

// usher is the rest of what a later process is given before it is in the container's
// pid namespace.
func (c *compiler) usher() error {
	c.become()
	if err := c.findCommand(); err != nil {
		return err
	}
	first, _, _ := c.limits()
	if err := c.limit(first); err != nil {
		return err
	}
	c.scheduling()
	c.lower()
	// Again: a change of credentials sets it to fs.suid_dumpable. Whoever has the ids of
	// the command and not its capabilities would look at the launcher's memory.
	c.field = "process"
	c.do(OpPrctl, "", flag(prSetDumpable, "PR_SET_DUMPABLE"), imm(0), imm(0), imm(0), imm(0))
	return nil
}

// fewFiles is a number of descriptors that making a process and waiting at the gate may need.
const fewFiles = 64

// limits are those of a later process in three parts. RLIMIT_NPROC would count the process
// that makes it, and a small RLIMIT_NOFILE would leave that no descriptor: each can be raised
// before, and lowered after; the latter at the very end.
func (c *compiler) limits() (first, later, last []specs.POSIXRlimit) {
	for _, l := range c.spec.Process.Rlimits {
		raise := false
		switch {
		case l.Type == "RLIMIT_NPROC":
			later = append(later, l)
			raise = l.Hard > c.facts.Container.Processes
		case l.Type == "RLIMIT_NOFILE" && l.Soft < fewFiles:
			last = append(last, l)
			raise = l.Hard >= fewFiles
		default:
			first = append(first, l)
		}
		if raise {
			first = append(first, specs.POSIXRlimit{Type: l.Type, Soft: l.Hard, Hard: l.Hard})
		}
	}
	return first, later, last
}

// follow is what the later process itself does, when the launcher lets it go on.
func (c *compiler) follow() error {
	c.out = &c.plan.Payload
	c.field = "process"
	c.hear()
	c.session()
	_, later, last := c.limits()
	if err := c.limit(later); err != nil {
		return err
	}
	late := c.spec.Process.NoNewPrivileges // else the filter is loaded
	if late && c.listens() {
		c.foreignFilter()
		late = false
	}
	if c.exec {
		c.field = "process"
		c.say(raw([]byte{1}, "one byte"), 1) // the end of the line will be execve
	} else {
		c.gate()
	}
	c.out = &c.plan.Command
	if err := c.limit(last); err != nil {
		return err
	}
	if late {
		c.foreignFilter()
	}
	return c.execute()
}

func (c *compiler) foreignFilter() {
	if len(c.facts.Filter) == 0 {
		return
	}
	c.field = "linux.seccomp"
	to := RegNone
	if c.listens() {
		to = RegListener
	}
	c.emit(Step{Op: OpSeccomp, Result: to, Args: []Arg{flag(seccompSetFilter, "SECCOMP_SET_MODE_FILTER"), imm(int64(c.facts.Container.FilterFlags)),
		program(c.facts.Filter, strconv.Itoa(len(c.facts.Filter)/8)+" instructions")}})
	if c.listens() {
		c.plan.Listens = true
		c.say(Arg{Kind: ArgRegs, N: int64(RegListener), Note: "number of the listener"}, 8)
		c.hear()
		c.closeReg(RegListener)
	}
}

// Scheduling policies of sched(7) and classes of ioprio_set(2).
var (
	policies   = map[specs.LinuxSchedulerPolicy]uint32{specs.SchedOther: 0, specs.SchedFIFO: 1, specs.SchedRR: 2, specs.SchedBatch: 3, specs.SchedISO: 4, specs.SchedIdle: 5, specs.SchedDeadline: 6}
	schedFlags = map[specs.LinuxSchedulerFlag]uint64{specs.SchedFlagResetOnFork: 1, specs.SchedFlagReclaim: 2, specs.SchedFlagDLOverrun: 4, specs.SchedFlagKeepPolicy: 8,
		specs.SchedFlagKeepParams: 16, specs.SchedFlagUtilClampMin: 32, specs.SchedFlagUtilClampMax: 64}
	ioClasses = map[specs.IOPriorityClass]int64{specs.IOPRIO_CLASS_RT: 1, specs.IOPRIO_CLASS_BE: 2, specs.IOPRIO_CLASS_IDLE: 3}
	// Modes and flags of set_mempolicy(2).
	memoryModes = map[specs.MemoryPolicyModeType]int64{specs.MpolDefault: 0, specs.MpolPreferred: 1, specs.MpolBind: 2, specs.MpolInterleave: 3, specs.MpolLocal: 4,
		specs.MpolPreferredMany: 5, specs.MpolWeightedInterleave: 6}
	memoryFlags = map[specs.MemoryPolicyFlagType]int64{specs.MpolFStaticNodes: 1 << 15, specs.MpolFRelativeNodes: 1 << 14, specs.MpolFNumaBalancing: 1 << 13}
	personas    = map[specs.LinuxPersonalityDomain]int64{specs.PerLinux: 0, specs.PerLinux32: 8}
)

// scheduler is what decides when the command runs.
func (c *compiler) scheduler() {
	if s := c.spec.Process.Scheduler; s != nil {
		c.field = "process.scheduler"
		c.do(OpSchedSetattr, "", imm(0), raw(SchedulerAttr(s), string(s.Policy)), imm(0))
	}
}

// scheduling is what else decides how the command runs.
func (c *compiler) scheduling() {
	p := c.spec.Process
	if o := p.IOPriority; o != nil {
		c.field = "process.ioPriority"
		c.do(OpIoprioSet, "", flag(1, "IOPRIO_WHO_PROCESS"), imm(0), imm(ioClasses[o.Class]<<13|int64(o.Priority)))
	}
	if m := c.spec.Linux.MemoryPolicy; m != nil {
		c.field = "linux.memoryPolicy"
		mode := memoryModes[m.Mode]
		for _, f := range m.Flags {
			mode |= memoryFlags[f]
		}
		if nodes, ok := CPUs(m.Nodes); ok {
			nodes = words(nodes)
			c.do(OpSetMempolicy, string(m.Mode), flag(mode, string(m.Mode)), raw(nodes, quoteShort(m.Nodes)), imm(int64(8*len(nodes)+1))) // the kernel takes one off
		} else {
			c.do(OpSetMempolicy, string(m.Mode), flag(mode, string(m.Mode)), imm(0), imm(0))
		}
	}
	if o := c.spec.Linux.Personality; o != nil {
		c.field = "linux.personality"
		c.do(OpPersonality, string(o.Domain), imm(personas[o.Domain]))
	}
}

// SchedulerAttr is struct sched_attr of sched_setattr(2), with which the kernel is given
// a scheduler that Container or Exec has checked.
func SchedulerAttr(s *specs.Scheduler) []byte {
	var flags uint64
	for _, f := range s.Flags {
		flags |= schedFlags[f]
	}
	b := binary.LittleEndian.AppendUint32(nil, 48) // sizeof(struct sched_attr), SCHED_ATTR_SIZE_VER0
	b = binary.LittleEndian.AppendUint32(b, policies[s.Policy])
	b = binary.LittleEndian.AppendUint64(b, flags)
	b = binary.LittleEndian.AppendUint32(b, uint32(s.Nice))
	b = binary.LittleEndian.AppendUint32(b, uint32(s.Priority))
	for _, n := range []uint64{s.Runtime, s.Deadline, s.Period} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	return b
}

// cleanAbsolute tells whether p is an absolute path that stays below the root.
func cleanAbsolute(p string) bool {
	return path.IsAbs(p) && strings.IndexByte(p, 0) < 0
}
