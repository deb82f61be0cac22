package container

import (
	"slices"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/launch"
	"github.com/capsule-run/capsule/runtime/seccomp/bpf"
	"github.com/capsule-run/capsule/runtime/specjson"
	"github.com/capsule-run/capsule/spec/fault"
)

// notifies tells whether a filter has calls that an agent answers.
func notifies(s *specs.LinuxSeccomp) bool {
	return slices.ContainsFunc(s.Syscalls, func(r specs.LinuxSyscall) bool { return r.Action == specs.ActNotify })
}

// ours are the calls between the loading of a filter and the agent, which nobody would answer. The
// last ones are made where a filter is loaded with privilege.
func ours(p *specs.Process) []string {
	list := []string{"write"}
	if !p.NoNewPrivileges {
		list = append(list, "read", "close", "prctl", "capset", "clone", "sendmsg", "exit_group")
	}
	return list
}

// checkListener refuses a filter whose notifications would reach nobody.
func checkListener(s *specs.Spec) error {
	o := s.Linux.Seccomp
	refuse := func(field, why string) error {
		return fault.New(fault.Seccomp, "compile system call filter", why).WithField("linux.seccomp." + field)
	}
	if o.DefaultAction == specs.ActNotify {
		return refuse("defaultAction", "SCMP_ACT_NOTIFY would stop the process before its agent is told")
	}
	if o.ListenerPath == "" && notifies(o) {
		return refuse("listenerPath", "is needed for SCMP_ACT_NOTIFY")
	}
	for i, r := range o.Syscalls {
		for _, name := range r.Names {
			if r.Action == specs.ActNotify && slices.Contains(ours(s.Process), name) {
				return refuse("syscalls["+strconv.Itoa(i)+"]", "SCMP_ACT_NOTIFY of "+name+" would stop the process before its agent is told")
			}
		}
	}
	return nil
}

// traced is a filter with traces in place of notifications, which have no word in the compiler, and
// the data that tells them from others.
func traced(o *specs.LinuxSeccomp) (*specs.LinuxSeccomp, uint) {
	const most = 4095 // of an errno
	free := uint(most)
	for slices.ContainsFunc(o.Syscalls, func(r specs.LinuxSyscall) bool { return r.ErrnoRet != nil && *r.ErrnoRet == free }) || o.DefaultErrnoRet != nil && *o.DefaultErrnoRet == free {
		free--
	}
	out := *o
	out.ListenerPath, out.ListenerMetadata = "", ""
	out.Flags = withoutWait(o.Flags)
	out.Syscalls = slices.Clone(o.Syscalls)
	for i := range out.Syscalls {
		if r := &out.Syscalls[i]; r.Action == specs.ActNotify {
			r.Action, r.ErrnoRet = specs.ActTrace, &free
		}
	}
	return &out, free
}

// withoutWait are flags without that which is for who waits for an agent's answer: it does not
// change the program.
func withoutWait(flags []specs.LinuxSeccompFlag) []specs.LinuxSeccompFlag {
	return slices.DeleteFunc(slices.Clone(flags), func(f specs.LinuxSeccompFlag) bool { return f == specs.LinuxSeccompFlagWaitKillableRecv })
}

// notified makes the notifications of a program again.
func notified(code []byte, data uint) []byte { return bpf.Notify(code, uint32(data)) }

// listener hands the listener of a filter on to its agent once the filter is loaded.
func (l *launcher) listener(sb *launch.Sandbox) error {
	if !l.plan.Listens {
		return nil
	}
	fd, err := sb.Descriptor()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := l.tellAgent(fd, sb.Pid); err != nil {
		return err
	}
	return sb.Continue()
}

// tellAgent gives the listener to the agent, with the state that the specification names.
func (l *launcher) tellAgent(fd, pid int) error {
	o := l.c.Config.Linux.Seccomp
	state := l.c.State()
	state.Pid = l.c.Process.Pid
	if l.of == nil {
		state.Status = specs.StateCreating
	}
	text, err := specjson.NewWriter(512, false).ProcessState(&specs.ContainerProcessState{Version: specs.Version, Fds: []string{specs.SeccompFdName}, Pid: pid,
		Metadata: o.ListenerMetadata, State: *state}).Bytes()
	if err != nil {
		return err
	}
	return send(o.ListenerPath, "linux.seccomp.listenerPath", text, fd)
}
