package launch

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/spec/fault"
)

// A held sandbox is built and waits in the kernel, in the process that will
// become the command, for the command:
//
//	launcher                       payload (process 1 waits for its execve)
//	   |                              walks Setup and Payload
//	   | <------------ one byte ----- it is built: Held returns
//	   |                              reads the status socket
//	   | encodes Plan.Command into the shared memory
//	   | ------------- one byte ----> walks Command, execve
//
// A launcher that dies ends the wait, and with it the sandbox: the socket is at
// its end.

// holdSteps say that the sandbox is built and wait for the command.
var holdSteps = []plan.Step{
	{Op: plan.OpWrite, Expect: 1, Path: "launcher", Args: []plan.Arg{
		{Kind: plan.ArgReg, N: int64(plan.RegSync)}, {Kind: plan.ArgBytes, S: "\x01"}, {Kind: plan.ArgImm, N: 1}}},
	{Op: plan.OpRead, Expect: 1, Path: "launcher", Args: waitOnly[0].Args},
}

// lateSize is the room for a command that comes later, with its arguments and its
// environment. Only what is used of it takes memory.
const lateSize = 256 << 10

// late is memory that is shared with a held sandbox.
type late struct {
	mapping []byte
	program *program
	at      addresses
}

func newLate(e *encoder) (*late, error) {
	mapping, err := unix.Mmap(-1, 0, lateSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fault.Wrap(fault.SystemCall, "mmap", err)
	}
	return &late{mapping: mapping, program: (*program)(unsafe.Pointer(unsafe.SliceData(mapping))), at: e.at}, nil
}

func (l *late) close() {
	if l != nil {
		_ = unix.Munmap(l.mapping) // it is ours and whole
	}
}

// Held blocks until a sandbox that was started with Options.Hold is built, or
// returns the fault of the step that failed.
func (s *Sandbox) Held() error {
	r, _, err := s.receive()
	switch {
	case err != nil:
		return fault.New(fault.MonitorFailed, "set up sandbox", "process 1 ended before it was built: "+s.lastWords())
	case r.kind == reportReady:
		return nil
	case r.kind == reportFailed:
		return s.stepFault(r)
	}
	return fault.New(fault.MonitorFailed, "set up sandbox", "unknown report")
}

// Waits tells whether a held sandbox still waits. Once Held has returned nothing
// comes from it before its Release but its end.
func (s *Sandbox) Waits() bool {
	fds := []unix.PollFd{{Fd: int32(s.status), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if err != unix.EINTR { // by a signal of Go's scheduler, though nobody waits
			return n == 0 && err == nil
		}
	}
}

// Takes tells whether a held sandbox can run the command of a plan: the plan
// builds just this sandbox, and the command is not too long.
func (s *Sandbox) Takes(p *plan.Plan) bool {
	if s.late == nil || !s.plan.SameSandbox(p) {
		return false
	}
	size := rounded(int(unsafe.Sizeof(program{})))
	for _, n := range measure(p.Command).parts() {
		size += rounded(n)
	}
	return size <= len(s.late.mapping)
}

// Release gives a held sandbox, which Takes it, the command of a plan and lets it
// go. Started comes next.
func (s *Sandbox) Release(p *plan.Plan) error {
	take := taker(s.late.mapping)
	take(int(unsafe.Sizeof(program{})))
	a := newArena(measure(p.Command), take, s.late.at)
	*s.late.program = a.program(p.Command)
	s.plan = p
	// The write orders what is in memory before it.
	if _, err := unix.Write(s.status, []byte{1}); err != nil {
		return fault.Wrap(fault.MonitorFailed, "release the sandbox", err)
	}
	return nil
}
