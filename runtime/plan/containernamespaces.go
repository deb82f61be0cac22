package plan

import (
	"bytes"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func hasUser(s *specs.Spec) bool { return namespaceOf(s.Linux, specs.UserNamespace) != nil }

func namespaceOf(l *specs.Linux, kind specs.LinuxNamespaceType) *specs.LinuxNamespace {
	for i := range l.Namespaces {
		if l.Namespaces[i].Type == kind {
			return &l.Namespaces[i]
		}
	}
	return nil
}

// kinds are the flags of namespaces by their OCI names.
var kinds = map[specs.LinuxNamespaceType]uint64{
	specs.UserNamespace: CloneNewUser, specs.MountNamespace: CloneNewNS, specs.PIDNamespace: CloneNewPID, specs.IPCNamespace: CloneNewIPC,
	specs.UTSNamespace: CloneNewUTS, specs.NetworkNamespace: CloneNewNet, specs.TimeNamespace: CloneNewTime, specs.CgroupNamespace: CloneNewCgroup,
}

// joinRegs are the registers of namespaces that a process enters itself.
var joinRegs = map[uint64]Reg{CloneNewUser: RegUserNS, CloneNewNS: RegMountNS, CloneNewTime: RegTimeNS, CloneNewCgroup: RegCgroupNS,
	CloneNewNet: RegNetNS, CloneNewIPC: RegIPCNS, CloneNewUTS: RegUTSNS, CloneNewPID: RegPIDNS}

// stepJoin gives a join its register where the launcher's thread cannot be in it while
// it clones.
func stepJoin(j Join) Join {
	switch j.Kind {
	case CloneNewUser, CloneNewNS, CloneNewTime, CloneNewCgroup, CloneNewPID:
		// The last one is for children alone. One thread of several could enter a cgroup namespace, but on a v2 tree mounted with
		// nsdelegate who is in a cgroup namespace clones nobody into a group from outside of it.
		j.Reg = joinRegs[j.Kind]
	}
	return j
}

// joins decides which namespaces are new and which exist.
func (c *compiler) joins() error {
	for i, ns := range c.spec.Linux.Namespaces {
		kind := kinds[ns.Type]
		switch {
		case ns.Path != "":
			c.plan.Joins = append(c.plan.Joins, stepJoin(Join{Kind: kind, Path: ns.Path, Field: namespaceField(i) + ".path"}))
		case ns.Type != specs.CgroupNamespace:
			c.plan.Clone |= kind
		}
	}
	if user := namespaceOf(c.spec.Linux, specs.UserNamespace); user != nil && user.Path == "" {
		c.plan.UIDMap, c.plan.GIDMap = idmaps(c.spec.Linux.UIDMappings), idmaps(c.spec.Linux.GIDMappings)
	}
	return nil
}

// postpone decides what is new and made by a step: what belongs to a user namespace that is
// entered by one, and a clock that is set, for which no process may be in its namespace. New
// pid and time namespaces are those of children, so a process before the first is needed.
func (c *compiler) postpone() error {
	if c.joined(CloneNewUser) || len(c.spec.Linux.TimeOffsets) > 0 {
		c.later = c.plan.Clone &^ CloneNewUser
		c.plan.Clone &^= c.later
	}
	if c.later&(CloneNewPID|CloneNewTime) != 0 || c.plan.BornLast {
		c.out = &c.plan.Before
	}
	return nil
}

// affinity is process.execCPUAffinity once the process is in the control group. The first
// one is the launcher's part. Without a second the process may run wherever the group may.
func (c *compiler) affinity() {
	a := c.spec.Process.ExecCPUAffinity
	if a == nil || a.Initial == "" && a.Final == "" {
		return
	}
	c.field = "process.execCPUAffinity.final"
	mask, ok := CPUs(a.Final)
	if !ok {
		mask = bytes.Repeat([]byte{0xff}, 1024) // all that any kernel knows
	}
	mask = words(mask)
	c.do(OpSchedSetaffinity, "", imm(0), imm(int64(len(mask))), raw(mask, quoteShort(a.Final)))
}

// makeLater makes what is new, and the process for which it is.
func (c *compiler) makeLater() {
	if c.later == 0 {
		return
	}
	c.do(OpUnshare, "namespaces", flag(int64(c.later), cloneNames(c.later)))
	c.offsets()
	if c.out == &c.plan.Before && !c.plan.BornLast {
		c.out = &c.plan.Setup
		c.hear()
	}
}

// offsets sets the clocks of the time namespace for children.
func (c *compiler) offsets() {
	list := c.spec.Linux.TimeOffsets
	if len(list) == 0 {
		return
	}
	c.field = "linux.timeOffsets"
	const file = "/proc/self/timens_offsets"
	c.into(RegFile, OpOpenat, file, imm(atFDCWD), str(file), flag(oWronly|oCloexec, "O_WRONLY|O_CLOEXEC"), imm(0))
	var text strings.Builder
	for _, clock := range clocks {
		if o, ok := list[clock]; ok {
			text.WriteString(clock + " " + strconv.FormatInt(o.Secs, 10) + " " + strconv.FormatUint(uint64(o.Nanosecs), 10) + "\n")
		}
	}
	c.emit(Step{Op: OpWrite, Args: []Arg{reg(RegFile), raw([]byte(text.String()), quoteShort(text.String())), imm(int64(text.Len()))}, Expect: int64(text.Len()), Path: file})
	c.closeReg(RegFile)
	c.field = "linux.namespaces"
}

// clocks are those that a time namespace has offsets for: time_namespaces(7).
var clocks = []string{"monotonic", "boottime"}

func (c *compiler) joined(kind uint64) bool {
	for _, j := range c.plan.Joins {
		if j.Kind == kind {
			return true
		}
	}
	return false
}
