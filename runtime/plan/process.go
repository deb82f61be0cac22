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
	c.field = "process.user.umask"
	c.do(OpUmask, "", flag(0o022, "022"))
	c.directory()
	if err := c.command(); err != nil {
		return nil, err
	}
	return c.plan, nil
}
