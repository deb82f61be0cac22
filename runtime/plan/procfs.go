package plan

import (
	"strings"
)

// A procfs shows the pid namespace of whoever opens its context. Where that is one that
// others are in already, the process that does it is seen by them, so it is one that has
// nothing: the ids of nobody, capabilities in a user namespace of its own alone, an empty
// root, one descriptor. The right to mount is only asked for when the context is used, which
// is done by the process that builds the container, from outside.

// nobody is the id of a process that has nothing.
const nobody = 65534

// procfsOf is the plan of the process that opens the context, in the pid namespace of j and
// in as many control groups as the container's.
func (c *compiler) procfsOf(j Join) *Plan {
	o := &compiler{spec: c.spec, facts: c.facts, plan: &Plan{Tasks: c.plan.Tasks, Joins: []Join{j}}, foreign: true}
	o.out = &o.plan.Before
	o.enterGroup()
	o.field = j.Field
	o.do(OpPrctl, "", flag(prSetDumpable, "PR_SET_DUMPABLE"), imm(0), imm(0), imm(0), imm(0))
	o.do(OpSetns, j.Path, reg(j.Reg), flag(int64(j.Kind), cloneNames(j.Kind)))
	o.closeReg(j.Reg)
	o.do(OpPrctl, "", flag(prSetKeepcaps, "PR_SET_KEEPCAPS"), imm(1), imm(0), imm(0), imm(0))
	if !c.facts.Container.NoSetgroups {
		o.do(OpSetgroups, "", imm(0), imm(0))
	}
	o.do(OpSetresgid, "", imm(nobody), imm(nobody), imm(nobody))
	o.do(OpSetresuid, "", imm(nobody), imm(nobody), imm(nobody))
	held := c.facts.Container.Permitted
	o.take(capabilities{effective: held, permitted: held})
	o.field = j.Field
	fresh := int64(CloneNewUser | CloneNewNS | CloneNewNet | CloneNewIPC | CloneNewUTS | CloneNewCgroup)
	o.do(OpUnshare, "namespaces", flag(fresh, cloneNames(uint64(fresh))))
	o.do(OpMount, "/", imm(0), str("/"), imm(0), flag(msRec|msSlave, "MS_REC|MS_SLAVE"), imm(0))
	o.do(OpChdir, "/proc", str("/proc")) // a directory that every host has
	o.into(RegFS, OpFsopen, "tmpfs", str("tmpfs"), flag(fsopenCloexec, "FSOPEN_CLOEXEC"))
	o.do(OpFsconfig, "tmpfs", reg(RegFS), flag(fsconfigCmdCreate, "FSCONFIG_CMD_CREATE"), imm(0), imm(0), imm(0))
	o.into(RegRoot, OpFsmount, "tmpfs", reg(RegFS), flag(fsmountCloexec, "FSMOUNT_CLOEXEC"), flag(mountAttrRdonly|mountAttrNosuid|mountAttrNodev|mountAttrNoexec, "ro,nosuid,nodev,noexec"))
	o.closeReg(RegFS)
	o.enterRoot()
	o.leave()
	o.field = j.Field
	o.do(OpCloseRange, "", imm(0), imm(2), imm(0))
	o.emit(Step{Op: OpCloseRange, Args: []Arg{imm(3), reg(RegBelow), imm(0)}, Mode: Ignore})
	o.emit(Step{Op: OpCloseRange, Args: []Arg{reg(RegBetweenFirst), reg(RegBetweenLast), imm(0)}, Mode: Ignore})
	o.do(OpCloseRange, "", reg(RegAbove), flag(0xffffffff, "~0"), imm(0))
	o.do(OpPrctl, "", flag(prSetDumpable, "PR_SET_DUMPABLE"), imm(0), imm(0), imm(0), imm(0)) // the ids have changed
	o.out = &o.plan.Setup
	o.hear()
	o.into(RegFS, OpFsopen, "proc", str("proc"), flag(fsopenCloexec, "FSOPEN_CLOEXEC"))
	o.say(Arg{Kind: ArgRegs, N: int64(RegFS), Note: "number of the context"}, 8)
	o.hear()
	return o.plan
}

// donatedProcfs mounts the procfs of which the launcher has the context.
func (c *compiler) donatedProcfs(dest string, o options) {
	for _, j := range c.plan.Joins {
		if j.Kind == CloneNewPID {
			c.plan.Procfs = c.procfsOf(j)
		}
	}
	c.ensureBelow(dest, true)
	c.strictly(dest)
	for _, word := range o.data {
		name, value, ok := strings.Cut(word, "=")
		if ok {
			c.do(OpFsconfig, "proc", reg(RegProcFS), flag(fsconfigSetString, "FSCONFIG_SET_STRING"), str(name), str(value), imm(0))
		} else {
			c.do(OpFsconfig, "proc", reg(RegProcFS), flag(fsconfigSetFlag, "FSCONFIG_SET_FLAG"), str(name), imm(0), imm(0))
		}
	}
	set := o.set | o.setRecursive
	c.do(OpFsconfig, "proc", reg(RegProcFS), flag(fsconfigCmdCreate, "FSCONFIG_CMD_CREATE"), imm(0), imm(0), imm(0))
	c.into(RegTree, OpFsmount, "proc", reg(RegProcFS), flag(fsmountCloexec, "FSMOUNT_CLOEXEC"), flag(int64(set), attrNote(set)))
	c.closeReg(RegProcFS)
	c.move(dest, RegTree)
	c.propagate(dest, o)
}
