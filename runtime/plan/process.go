package plan

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/spec/fault"
)

// Process makes the plan of a command without a sandbox: in the host's tree, as the
// caller's user, in a session of its own, with the rlimits of the configuration. No
// wall stands around it but those. The order is that of a command in a sandbox.
func Process(s *specs.Spec) (*Plan, error) {
	p := s.Process
	if p == nil || len(p.Args) == 0 || p.Cwd == "" || p.Cwd[0] != '/' {
		return nil, fault.New(fault.InvalidBundle, "compile plan", "a command and an absolute working directory are required").WithField("process")
	}
	c := &compiler{spec: s, facts: Facts{NoInit: true, Rootless: true}, plan: &Plan{}, dirs: map[string]bool{"/": true}}
	c.out = &c.plan.Setup
	c.field = "process"
	c.emit(Step{Op: OpRead, Args: []Arg{reg(RegSync), raw(make([]byte, 1), "one byte"), imm(1)}, Expect: 1, Path: "launcher"})
	if err := c.stdio(); err != nil {
		return nil, err
	}
	c.out = &c.plan.Payload
	c.do(OpSetsid, "")
	if err := c.rlimits(); err != nil {
		return nil, err
	}
	c.field = "process.user.umask"
	c.do(OpUmask, "", flag(0o022, "022"))
	c.field = "process.cwd"
	c.into(RegFile, OpOpenat2, p.Cwd, imm(atFDCWD), str(p.Cwd), raw(openHow(resolveNoMagiclinks), "O_PATH, no magic links"), imm(openHowSize))
	c.do(OpFchdir, p.Cwd, reg(RegFile))
	c.closeReg(RegFile)
	candidates, err := c.candidates()
	if err != nil {
		return nil, err
	}
	c.field = "process.args"
	for _, file := range candidates {
		c.emit(Step{Op: OpFaccessat, Args: []Arg{imm(atFDCWD), str(file), imm(0), imm(0)}, Mode: Note, Path: file})
	}
	c.field = "process"
	c.do(OpPrctl, "", flag(prSetPdeathsig, "PR_SET_PDEATHSIG"), flag(sigKill, "SIGKILL"), imm(0), imm(0), imm(0))
	// A launcher that died before that sends no signal any more: EPIPE.
	c.emit(Step{Op: OpWrite, Args: []Arg{reg(RegSync), raw([]byte{1}, "one byte"), imm(1)}, Expect: 1, Path: "launcher"})
	c.do(OpCloseRange, "", imm(3), flag(0xffffffff, "~0"), flag(closeRangeCloexec, "CLOSE_RANGE_CLOEXEC"))
	c.field = "process.args"
	for _, file := range candidates {
		c.emit(Step{Op: OpExecve, Args: []Arg{str(file), vector(p.Args), vector(p.Env)}, Mode: Try, Path: file})
	}
	return c.plan, nil
}
