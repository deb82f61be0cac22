package launch

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/spec/fault"
)

// joined is a namespace that exists and that the sandbox gets.
type joined struct {
	fd int
	plan.Join
}

// openJoins opens the namespaces of a plan and checks that each is what the
// configuration says: a path that leads to another kind would put the command where
// nobody meant it to be.
func (pr *Prepared) openJoins() error {
	for _, j := range pr.plan.Joins {
		fail := func(err error) error {
			return fault.Wrap(fault.Namespace, "join namespace", err).WithPath(j.Path).WithField(j.Field)
		}
		fd, err := unix.Open(j.Path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return fail(err)
		}
		pr.joins = append(pr.joins, joined{fd, j})
		kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
		if err != nil {
			return fail(errors.New("is not a namespace"))
		}
		if uint64(kind) != j.Kind {
			return fail(errors.New("is a namespace of another kind"))
		}
		if j.Reg != plan.RegNone {
			pr.enc.machine.regs[j.Reg] = uintptr(fd)
		}
	}
	return nil
}

// within enters the namespaces that the child is born into, calls clone and comes
// back. The caller has locked its goroutine to the thread. A thread that cannot come
// back is of no use to anybody, so that error is the caller's end.
func (pr *Prepared) within(clone func() error) (err error) {
	for _, j := range pr.joins {
		if j.Reg != plan.RegNone {
			continue
		}
		name, ok := threadNamespaces[j.Kind]
		if !ok {
			return fault.New(fault.Namespace, "join namespace", "only a process of one thread can enter this kind").WithPath(j.Path).WithField(j.Field)
		}
		own, err := unix.Open("/proc/thread-self/ns/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fault.Wrap(fault.Namespace, "open own namespace", err).WithPath(name)
		}
		defer func() {
			if back := unix.Setns(own, int(j.Kind)); back != nil {
				err = errors.Join(err, fault.Wrap(fault.Namespace, "return to own namespace", back).WithPath(name))
			}
			unix.Close(own)
		}()
		if err := unix.Setns(j.fd, int(j.Kind)); err != nil {
			return fault.Wrap(fault.Namespace, "join namespace", err).WithPath(j.Path).WithField(j.Field)
		}
	}
	return clone()
}

// threadNamespaces are those that one thread of several can enter.
var threadNamespaces = map[uint64]string{unix.CLONE_NEWNET: "net", unix.CLONE_NEWIPC: "ipc", unix.CLONE_NEWUTS: "uts"}

// Born blocks until the sandbox has its first process, calls ready with its number and
// lets it go on. Where the plan has no process before it that is at once.
func (s *Sandbox) Born(ready func(pid int) error) error {
	if !s.unborn {
		return ready(s.Pid)
	}
	r, fds, err := s.receive()
	switch {
	case err != nil:
		return fault.New(fault.MonitorFailed, "set up sandbox", "its first process was not made: "+s.lastWords())
	case r.kind == reportFailed:
		return s.stepFault(r)
	}
	// Its end comes before the first step of the other: limits count both.
	before, pid := s.pidfd, s.Pid
	if !s.bear(r, fds) {
		return fault.New(fault.MonitorFailed, "set up sandbox", "unknown report")
	}
	_, _, err = waitPidfd(before, pid)
	unix.Close(before)
	if err != nil && !errors.Is(err, unix.ECHILD) { // a launcher that reaps whatever ends has done it
		return err
	}
	if err := ready(s.Pid); err != nil {
		return err
	}
	return s.Continue()
}

// bear takes the process of a report in place of that before it, whose descriptor is the
// caller's then. False: the report is another.
func (s *Sandbox) bear(r report, fds [2]int) bool {
	if r.kind != reportBorn || fds[0] < 0 {
		return false
	}
	if !child(fds[0], int(r.value)) {
		shut(fds)
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Pid, s.pidfd, s.unborn = int(r.value), fds[0], false
	return true
}

// child tells whether a pidfd is that of a child of this process with the given number. What
// is in a container and has CAP_SYS_PTRACE may have taken the line from the new process, and
// would name another of the host's, for callers to signal.
func child(pidfd, pid int) bool {
	if unix.Waitid(unix.P_PIDFD, pidfd, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, nil) != nil {
		return false
	}
	text, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(pidfd))
	return err == nil && strings.Contains(string(text), "\nPid:\t"+strconv.Itoa(pid)+"\n")
}

// Continue lets a sandbox go on that stopped for its launcher. Held, or Descriptor,
// comes before it.
func (s *Sandbox) Continue() error {
	if _, err := unix.Write(s.status, []byte{1}); err != nil {
		return fault.Wrap(fault.MonitorFailed, "let the sandbox go on", err)
	}
	return nil
}

// Descriptor blocks until the sandbox stops to hand one over, such as the master of its
// terminal, and returns it. The caller closes it.
func (s *Sandbox) Descriptor() (int, error) {
	r, _, err := s.receive()
	switch {
	case err != nil:
		return -1, fault.New(fault.MonitorFailed, "set up sandbox", "process 1 ended before it was built: "+s.lastWords())
	case r.kind == reportFailed:
		return -1, s.stepFault(r)
	case r.kind != reportDescriptor:
		return -1, fault.New(fault.MonitorFailed, "set up sandbox", "unknown report")
	}
	fd, err := unix.PidfdGetfd(s.pidfd, int(r.value), 0)
	if err != nil {
		return -1, fault.Wrap(fault.MonitorFailed, "pidfd_getfd", err)
	}
	return fd, nil
}

// reportDescriptor is a report of eight bytes: the number of a descriptor of the sandbox.
const reportDescriptor = 5

// Leave gives the sandbox up to itself: its descriptors are closed and nothing else
// happens. It is for one that no longer ends with its launcher.
func (s *Sandbox) Leave() { s.closeAll() }

// Failed reads a report that a container's process sent to whoever opened its gate: the
// step of Plan.Command that failed, and the error.
func Failed(b []byte) (step int, errno syscall.Errno, ok bool) {
	var r report
	if len(b) != int(reportSize) {
		return 0, 0, false
	}
	copy((*[reportSize]byte)(unsafe.Pointer(&r))[:], b)
	return int(r.step), syscall.Errno(r.value), r.kind == reportFailed && r.phase == phaseCommand
}
