package launch

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/spec/fault"
)

// Sandbox is a launched plan. Started, Exited and Reap are called once each,
// in that order, from one goroutine; Signal and Kill from any, between them.
type Sandbox struct {
	// Pid is process 1 of the sandbox in the launcher's pid namespace, from Born on
	// where the plan has a process before it.
	Pid     int
	plan    *plan.Plan
	pidfd   int // of process 1
	payload int // of the payload, once started
	status  int
	// listener of the filter's notifications, until TakeListener. Not positive: none.
	listener int
	late     *late      // of a sandbox that waits for its command
	unborn   bool       // the process is that of Plan.Before
	mu       sync.Mutex // guards the descriptors against their closing
}

// Started blocks until the command runs and returns that moment
// (CLOCK_MONOTONIC), or the fault of the step that failed.
func (s *Sandbox) Started() (time.Duration, error) {
	r, fds, err := s.receive()
	ready := err == nil && r.kind == reportReady
	if ready {
		r, fds, err = s.receive()
	}
	switch {
	case errors.Is(err, io.EOF) && ready:
		// The payload is process 1: execve closed the socket.
		s.setPayload(s.pidfd)
		return monotonic(), nil
	case errors.Is(err, io.EOF):
		return 0, fault.New(fault.MonitorFailed, "set up sandbox", "process 1 ended before the command ran: "+s.lastWords())
	case err != nil:
		return 0, err
	case r.kind == reportStarted && s.plan.HasInit:
		s.late.close() // process 1 alone has it now
		s.late = nil
		s.setPayload(fds[0])
		s.listener = fds[1]
		return time.Duration(r.nanos), nil
	case r.kind == reportFailed:
		return 0, s.stepFault(r)
	}
	return 0, fault.New(fault.MonitorFailed, "set up sandbox", "unknown report")
}

func (s *Sandbox) setPayload(fd int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.payload = fd
}

// TakeListener gives the listener of the filter's notifications to the caller,
// who closes it. False: there is none, since the plan asks for none or the
// kernel refused it. Call it after Started.
func (s *Sandbox) TakeListener() (fd int, ok bool) {
	fd, s.listener = s.listener, 0
	return fd, fd > 0
}

// Listens says whether there is a listener to take.
func (s *Sandbox) Listens() bool { return s.listener > 0 }

// Notified blocks until the filter has a notification and returns true, or false
// when Exited has something to tell, or there is no listener. It is called
// between Started and Exited, from their goroutine.
func (s *Sandbox) Notified() bool {
	if s.listener <= 0 {
		return false
	}
	fds := []unix.PollFd{{Fd: int32(s.status), Events: unix.POLLIN}, {Fd: int32(s.listener), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); err != unix.EINTR {
			return err == nil && fds[1].Revents&unix.POLLIN != 0
		}
	}
}

// lastWords says how process 1 ended, without reaping it.
func (s *Sandbox) lastWords() string {
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PIDFD, s.pidfd, &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		return err.Error()
	}
	// struct siginfo of SIGCHLD: si_pid, si_uid, si_status behind the 16 bytes of the head.
	status := *(*int32)(unsafe.Add(unsafe.Pointer(&info), 24))
	if info.Code == 1 { // CLD_EXITED
		return "exit status " + strconv.Itoa(int(status))
	}
	return "signal " + unix.SignalName(syscall.Signal(status))
}

// Exit is the end of the payload.
type Exit struct {
	Status syscall.WaitStatus
	At     time.Duration // CLOCK_MONOTONIC
	// Alone: the payload was the last process of the sandbox but process 1,
	// which ends with Reap.
	Alone bool
	// Full are the tmpfs of Plan.Disks that were full at that moment. Without an
	// init nobody looks.
	Full []FullDisk
	// Usage is that of the payload and of what it waited for. Nil with an init.
	Usage *unix.Rusage
}

func (s *Sandbox) fullDisks(bits uint32) []FullDisk {
	var list []FullDisk
	for i, path := range s.plan.Disks {
		if two := bits >> (2 * i) & 3; two != 0 {
			list = append(list, FullDisk{path, two&1 != 0, two&2 != 0})
		}
	}
	return list
}

// Exited blocks until the payload has ended and returns its wait status as the
// kernel gave it. io.EOF: process 1 died first, so the status is not known.
func (s *Sandbox) Exited() (Exit, error) {
	if !s.plan.HasInit {
		status, usage, err := waitPidfd(s.pidfd, s.Pid)
		// The kernel lets process 1 be waited for when all others are dead.
		return Exit{Status: status, At: monotonic(), Alone: true, Usage: usage}, err
	}
	r, _, err := s.receive()
	if err != nil {
		return Exit{}, err
	}
	return Exit{Status: syscall.WaitStatus(r.value), At: time.Duration(r.nanos), Alone: r.found == 1, Full: s.fullDisks(r.full)}, nil
}

// Signal sends sig to the payload alone.
func (s *Sandbox) Signal(sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.payload < 0 {
		return unix.ESRCH
	}
	return unix.PidfdSendSignal(s.payload, sig, nil, 0)
}

// Kill ends process 1 and with it, by the kernel's rule, its pid namespace.
func (s *Sandbox) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pidfd < 0 {
		return unix.ESRCH
	}
	return unix.PidfdSendSignal(s.pidfd, unix.SIGKILL, nil, 0)
}

// Reap lets process 1 go and waits until it is gone, and with it every process of the
// sandbox, closes all descriptors and returns the resource usage of process 1
// and of the descendants that were waited for.
func (s *Sandbox) Reap() (*unix.Rusage, error) {
	var usage *unix.Rusage
	var err error
	unix.Close(s.status) // for which it waits
	s.status = -1
	if s.plan == nil || s.plan.HasInit {
		_, usage, err = waitPidfd(s.pidfd, s.Pid)
	}
	s.closeAll()
	return usage, err
}

// Abandon kills and reaps whatever the state.
func (s *Sandbox) Abandon() {
	s.end()
	if s.unborn {
		// What Plan.Before has made in the meantime waits for us, and so ends in any case.
		_ = unix.Shutdown(s.status, unix.SHUT_WR)
		before := s.pidfd
		if r, fds, err := s.receive(); err == nil && s.bear(r, fds) {
			unix.Close(before)
			s.end()
		}
	}
	s.closeAll()
}

func (s *Sandbox) end() {
	_ = s.Kill() // ESRCH: it is gone already, which is what is wanted
	_, _, _ = waitPidfd(s.pidfd, s.Pid)
}

func (s *Sandbox) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.payload == s.pidfd {
		s.payload = -1 // one descriptor by two names is closed once
	}
	s.late.close()
	s.late = nil
	for _, fd := range []*int{&s.status, &s.payload, &s.pidfd} {
		if *fd >= 0 {
			unix.Close(*fd)
		}
		*fd = -1
	}
	if s.listener > 0 {
		unix.Close(s.listener)
		s.listener = 0
	}
}

// receive reads one report and the descriptors with it, -1 where there is none. The
// read blocks a thread, which a process that runs one execution can afford.
func (s *Sandbox) receive() (report, [2]int, error) {
	var r report
	buf := (*[reportSize]byte)(unsafe.Pointer(&r))[:]
	oob := make([]byte, unix.CmsgSpace(8))
	for {
		n, oobn, _, _, err := unix.Recvmsg(s.status, buf, oob, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err == unix.ECONNRESET || err == nil && n == 0 {
			return r, [2]int{}, io.EOF
		}
		fds := parseRights(oob[:oobn])
		if n != int(reportSize) || r.kind != reportStarted && r.kind != reportBorn {
			shut(fds) // nothing of ours: something else writes to the line
		}
		if err == nil && n == 1 {
			return report{kind: reportReady}, [2]int{}, nil
		}
		if err == nil && n == 8 {
			return report{kind: reportDescriptor, value: uint32(*(*uint64)(unsafe.Pointer(&r)))}, [2]int{}, nil
		}
		if err != nil || n != int(reportSize) {
			return r, [2]int{}, fault.Wrap(fault.MonitorFailed, "read report", errors.Join(err, io.ErrUnexpectedEOF))
		}
		return r, fds, nil
	}
}

// shut closes descriptors, of which there may be none.
func shut(fds [2]int) {
	for _, fd := range fds {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

func parseRights(oob []byte) [2]int {
	out := [2]int{-1, -1}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) != 1 {
		return out
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) > len(out) {
		return out
	}
	copy(out[:], fds)
	return out
}

// waitPidfd reaps by pidfd. The pid is only used to fetch the wait status in
// the form that WaitStatus has; it is our unreaped child, so it cannot be reused.
func waitPidfd(pidfd, pid int) (syscall.WaitStatus, *unix.Rusage, error) {
	for {
		var status unix.WaitStatus
		var usage unix.Rusage
		_, err := unix.Wait4(pid, &status, unix.WALL, &usage)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, nil, fault.Wrap(fault.MonitorFailed, "wait4", err)
		}
		return syscall.WaitStatus(status), &usage, nil
	}
}

func monotonic() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail for this clock
	return time.Duration(ts.Nano())
}

// stepFault names the step that failed.
func (s *Sandbox) stepFault(r report) error {
	errno := syscall.Errno(r.value)
	steps := map[uint32][]plan.Step{phaseBefore: s.plan.Before, phaseSetup: s.plan.Setup, phasePayload: s.plan.Payload,
		phaseHold: holdSteps, phaseCommand: s.plan.Command, phaseInit: s.plan.Init}[r.phase]
	if int(r.step) >= len(steps) {
		return fault.Wrap(fault.Namespace, "start the command's process", errno)
	}
	step := steps[r.step]
	f := fault.Wrap(stepCode(step), step.Op.String(), errno).WithField(step.Field).WithPath(step.Path)
	f.Details = map[string]any{"step": step.String(), "errno": unix.ErrnoName(errno)}
	if errno == unix.EPERM || errno == unix.EACCES {
		f.Hint = forbiddenHint(step)
	}
	if errno == unix.ENOENT && mounts(step) {
		f.Err = fmt.Errorf("%w: %w", ErrReplaced, errno)
		f.Hint = "Something on the host, a package manager for instance, keeps replacing this file; try again."
	}
	if step.Field == "process.cwd" {
		f.Op = "chdir" // what it amounts to; Details has the call
		f.Hint = "The working directory is a path inside: show a directory of the host there with a bind, or name one that is there and that the user may enter."
	}
	if step.Op == plan.OpExecve {
		return execFault(f, step, errno, r.found == 1)
	}
	return f
}

// ErrReplaced is that a source was replaced or removed on the host after it was
// opened: the kernel does not mount what has no name any more. A launch prepared
// anew opens what stands there now.
var ErrReplaced = errors.New("the source was replaced while it was being mounted")

// mounts tells whether a step puts what comes from outside in its place.
func mounts(step plan.Step) bool {
	return step.Op == plan.OpMoveMount && strings.HasPrefix(step.Field, "mounts[")
}

// forbiddenHint is for steps that the kernel allows in a user namespace unless
// something around capsule forbids it. Empty: the code's own hint.
func forbiddenHint(s plan.Step) string {
	switch {
	case s.Op == plan.OpMount && s.Path == "/proc":
		return "Parts of the host's /proc are mounted over, so no fresh one may be mounted: give the container " +
			"--security-opt systempaths=unconfined (Docker) or --security-opt unmask=ALL (Podman), or a node that is itself a container one more procfs (mount -t proc proc /run/proc). capsulectl doctor tells more."
	case s.Op == plan.OpMount, s.Op == plan.OpFsopen, s.Op == plan.OpFsmount, s.Op == plan.OpOpenTree, s.Op == plan.OpMoveMount, s.Op == plan.OpPivotRoot:
		return "A security policy around capsule forbids mounts in a user namespace; capsulectl doctor names it and the commands that mend it."
	}
	return ""
}

// execFault says what a shell would say.
func execFault(f *fault.Fault, step plan.Step, errno syscall.Errno, found bool) error {
	name := step.Args[1].Vec[0]
	f.Op, f.Path, f.Field = "", name, "/command/0"
	say := func(text, hint string) error {
		f.Err = errors.Join(errors.New(text))
		f.Hint = hint
		f.Details["command"] = name
		return f
	}
	switch {
	case errno == unix.ENOENT && found:
		f.Details["errno"] = "ENOENT_INTERPRETER"
		return say("the command exists, but the interpreter that it names (#! line or dynamic loader) does not", "Bind the interpreter into the sandbox, or correct the first line of the script.")
	case errno == unix.ENOENT:
		return say("command not found", "")
	case errno == unix.EACCES:
		return say("not executable: no execute permission, a directory, or on a noexec mount", "Check the file's mode; /dev and /proc are mounted noexec.")
	case errno == unix.ENOEXEC:
		return say("not executable: neither a program for this machine nor a script with a #! line", "Start it through its interpreter, for example [\"sh\", \"FILE\"].")
	case errno == unix.EPERM:
		return say("execve: "+errno.Error(), "A filter of one's own must allow execve and what a program calls at its start; otherwise a security policy of the host forbids it.")
	case errno == unix.E2BIG:
		f.Code = fault.OutOfRange
		return say("arguments and environment together are larger than the kernel accepts", "Pass large data on stdin or in a file.")
	}
	return say("execve: "+errno.Error(), "")
}

// stepCode is the code of a failing step, by what the call is for.
func stepCode(s plan.Step) fault.Code {
	switch s.Op {
	case plan.OpSetresuid, plan.OpSetresgid, plan.OpSetgroups:
		return fault.IDMapping
	case plan.OpUnshare, plan.OpSetns, plan.OpSethostname, plan.OpSetdomainname, plan.OpRead, plan.OpSetsid, plan.OpKeyctl:
		return fault.Namespace
	case plan.OpWrite:
		if s.Field == "linux.cgroupsPath" {
			return fault.Cgroup
		}
	case plan.OpPrctl, plan.OpCapset:
		return fault.Capabilities
	case plan.OpLandlockCreateRuleset, plan.OpLandlockAddRule, plan.OpLandlockRestrictSelf:
		return fault.Unsupported
	case plan.OpSeccomp:
		return fault.Seccomp
	case plan.OpSocket, plan.OpIoctl:
		return fault.Network
	case plan.OpPrlimit:
		return fault.LimitUnavailable
	case plan.OpExecve, plan.OpFaccessat:
		return fault.CommandNotFound
	case plan.OpOpenat2, plan.OpFchdir:
		if s.Field == "process.cwd" {
			return fault.InvalidPath
		}
	case plan.OpDup3, plan.OpCloseRange, plan.OpFcntl, plan.OpPersonality, plan.OpSchedSetattr, plan.OpIoprioSet, plan.OpSchedSetaffinity, plan.OpSetMempolicy:
		return fault.SystemCall
	}
	return fault.Filesystem
}
