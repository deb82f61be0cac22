package launch

//lint:file-ignore U1000 Assembly calls the entry points of the child.

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/plan"
)

// Everything in this file runs in a forked child of a multi-threaded Go
// process, or in its vfork child. The rules of syscall/exec_linux.go hold:
//
//   - only this thread exists; whatever another thread held stays held, so no
//     lock may be taken, nothing allocated, no other package called;
//   - the stack cannot grow (stackguard0 is stackFork): every function is
//     nosplit, and together they fit the linker's nosplit limit;
//   - memory is read and written through the machine only, which the parent
//     mapped and filled; the Go heap does not exist here at all, so even the
//     goroutine that cloned us is out of reach; no slice is indexed, since a
//     bounds check would call into the runtime; no pointer is stored, since a
//     write barrier would too when the launcher was collecting garbage;
//   - race and coverage instrumentation is off.
//
// The order of what happens is in the plan; nothing here depends on policy.

// futexWait is FUTEX_WAIT of futex(2).
const futexWait = 0

// The kinds of report.
const (
	reportFailed  = 1 // a step failed: phase, step and errno tell which
	reportStarted = 2 // execve succeeded; the payload's pidfd comes along, and the filter's listener
	reportExited  = 3 // value is the payload's wait status
	reportReady   = 4 // one byte, from a payload without init that is about to execve
	reportBorn    = 6 // value is the number of the sandbox's first process; its pidfd comes along
)

// The phases of a plan.
const (
	phaseSetup   = 1
	phasePayload = 2
	phaseInit    = 3
	phaseFork    = 4
	phaseHold    = 5
	phaseCommand = 6
	phaseBefore  = 7
)

// report is one message from the sandbox to its launcher.
type report struct {
	kind  uint32
	phase uint32
	step  uint32
	value uint32 // errno, or wait status
	found uint32 // failed: 1 when the command exists, so ENOENT is about its interpreter; exited: see alone
	full  uint32 // exited: see fullDisks
	nanos int64  // CLOCK_MONOTONIC
}

const reportSize = unsafe.Sizeof(report{})

// instr is one encoded step.
type instr struct {
	nr     uintptr
	args   [6]uintptr
	expect uintptr // result that is required; 0: any
	regs   uint8   // bit k: args[k] is a register number
	mode   uint8
	result uint16
	skip   uint8 // steps, of the modes that pass some over
}

// program is a run of instr.
type program struct {
	first *instr
	count uintptr
}

// machine is all memory that the child uses.
type machine struct {
	before               program // empty: the launcher makes the first process itself
	setup, payload, init program
	hold                 program  // between payload and command; empty: there is no wait
	command              *program // own, or in memory that the launcher fills later
	own                  program
	occupied             uint32 // until the payload's process executes the command or ends, which the kernel then clears
	regs                 [512]uintptr
	status               uintptr // our end of the status socket
	peer                 uintptr // the launcher's end, closed first
	keep                 uintptr // a descriptor that process 1 holds until it dies
	hasKeep, hasInit     bool
	stack                uintptr // top of the payload's stack until it execs
	report               report
	failed               uint32 // set by the vfork child, which shares our memory
	pidfd                int32
	initPidfd            int32 // written by clone3 for the launcher
	clock                unix.Timespec
	disks                [plan.MaxDisks]uintptr // paths of tmpfs
	diskCount            uintptr
	statfs               unix.Statfs_t
	action               [4]uintptr // struct sigaction: SIG_DFL, no flags
	wait                 uint32
	scratch              [8]byte
	iov                  unix.Iovec
	msg                  unix.Msghdr
	control              struct {
		unix.Cmsghdr
		fds [2]int32 // the payload's pidfd and its filter's listener
	}
}

//go:linkname runtimeBeforeFork syscall.runtime_BeforeFork
func runtimeBeforeFork()

//go:linkname runtimeAfterFork syscall.runtime_AfterFork
func runtimeAfterFork()

// cloneSandbox is clone3(2). The child runs sandboxMain(m) on the stack that args
// names and never comes back: it has no copy of the Go heap, in which the
// stacks of goroutines lie (see keepHeap).
func cloneSandbox(args *cloneArgs, m *machine) (pid, errno uintptr)

// vforkPayload clones with the given flags onto the given stack and calls
// payloadMain(m) there. It stands in assembly because parent and child share memory
// but must not share a stack frame.
func vforkPayload(flags, stack uintptr, m *machine, pidfd *int32, tid *uint32) (pid, errno uintptr)

// forkSandbox clones the first process of the sandbox.
//
//go:noinline
//go:norace
//go:nocheckptr
func forkSandbox(args *cloneArgs, m *machine) (pid uintptr, errno syscall.Errno) {
	// Blocks all signals: no handler of ours may run in the child. The child
	// sets every handler to its default before it unblocks them, so the
	// runtime's own AfterForkInChild, which needs the heap, is not wanted.
	runtimeBeforeFork()
	pid, failure := cloneSandbox(args, m)
	runtimeAfterFork()
	return pid, syscall.Errno(failure)
}

// sandboxMain is the life of the sandbox's first process.
//
//go:norace
//go:nosplit
func sandboxMain(m *machine) {
	// Our copy of the launcher's end would hide its death from us.
	syscall.RawSyscall(unix.SYS_CLOSE, m.peer, 0, 0)
	// For the time until credentials change, which clears it.
	syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0, 0)
	defaultSignals(m)
	if m.before.count != 0 {
		if !walk(m, &m.before, phaseBefore) {
			fail(m)
		}
		bear(m)
	}
	if !walk(m, &m.setup, phaseSetup) {
		fail(m)
	}
	if !m.hasInit {
		become(m)
		fail(m)
	}
	// Descriptors are shared until execve: the payload loads its filter last and
	// may call nothing after it, so it could not hand the listener over itself.
	flags := unix.CLONE_VM | unix.CLONE_FILES | unix.CLONE_PIDFD | uintptr(unix.SIGCHLD)
	if m.hold.count == 0 {
		flags |= unix.CLONE_VFORK
	} else {
		// A long wait for vfork would count as load of the host, as one for a disk.
		flags |= unix.CLONE_CHILD_CLEARTID
		m.occupied = 1
	}
	pid, errno := vforkPayload(flags, m.stack, m, &m.pidfd, &m.occupied)
	if errno != 0 {
		m.report.phase, m.report.step, m.report.value = phaseFork, 0, uint32(errno)
		fail(m)
	}
	for m.occupied != 0 {
		// Not FUTEX_PRIVATE_FLAG: the kernel wakes the other kind (set_tid_address(2)).
		syscall.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&m.occupied)), futexWait, 1, 0, 0, 0)
	}
	// The payload has replaced itself or ended: both ways come here only then.
	if m.failed != 0 {
		fail(m)
	}
	// The payload's plan read the clock, in memory that it shared with us.
	m.report.nanos = nanos(m)
	if !walk(m, &m.init, phaseInit) {
		fail(m)
	}
	started(m)
	reap(m, pid)
}

// bear makes the sandbox's first process, a sibling, which alone comes back. Its memory
// is a copy: who is in the sandbox may be able to write to it, and this process is
// outside.
//
//go:norace
//go:nosplit
func bear(m *machine) {
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, unix.CLONE_PARENT|unix.CLONE_PIDFD|uintptr(unix.SIGCHLD), 0, uintptr(unsafe.Pointer(&m.pidfd)), 0, 0, 0)
	if pid == 0 && errno == 0 {
		return
	}
	m.report.phase, m.report.step = phaseFork, 0
	if errno == 0 {
		m.report.kind, m.report.value = reportBorn, uint32(pid)
		m.control.fds[0] = m.pidfd
		if _, _, errno = syscall.RawSyscall(unix.SYS_SENDMSG, m.status, uintptr(unsafe.Pointer(&m.msg)), unix.MSG_NOSIGNAL); errno == 0 {
			exit(0)
		}
	}
	// The launcher ends the line, and with it a process that waits at its other end.
	m.report.value = uint32(errno)
	fail(m)
}

// payloadMain runs in the vfork child, on its own stack and in shared memory.
//
//go:norace
//go:nosplit
func payloadMain(m *machine) {
	become(m)
	// Only a failed execve comes here. The init reports for us: our filter may
	// forbid it.
	m.failed = 1
	exit(1)
}

// become makes this process the command, after a wait for it where there is one. It
// returns only when a step failed.
//
//go:norace
//go:nosplit
func become(m *machine) {
	if walk(m, &m.payload, phasePayload) && walk(m, &m.hold, phaseHold) {
		walk(m, m.command, phaseCommand)
	}
}

// walk executes a program. It returns false when a step failed, which
// m.report then names, and when a command's program ends without execve.
//
//go:norace
//go:nosplit
func walk(m *machine, p *program, phase uint32) bool {
	var denied uint32
	for i := uintptr(0); i < p.count; i++ {
		in := (*instr)(unsafe.Pointer(uintptr(unsafe.Pointer(p.first)) + i*unsafe.Sizeof(instr{})))
		a := in.args
		for k := 0; k < 6; k++ {
			if in.regs&(1<<k) != 0 {
				a[k] = m.regs[a[k]&511]
			}
		}
		r, _, errno := syscall.RawSyscall6(in.nr, a[0], a[1], a[2], a[3], a[4], a[5])
		if errno == 0 && in.expect != 0 && r != in.expect {
			errno = syscall.EIO
		}
		if errno == 0 {
			if in.result != 0 {
				m.regs[in.result&511] = r
			}
			if in.mode == uint8(plan.Note) {
				m.report.found = 1
			}
			if in.mode == uint8(plan.Prefer) {
				i += uintptr(in.skip)
			}
			continue
		}
		switch in.mode {
		case uint8(plan.Ignore), uint8(plan.Note), uint8(plan.Prefer):
			continue
		case uint8(plan.Try):
			if errno == syscall.EACCES {
				denied = uint32(errno)
			}
			if errno == syscall.EACCES || errno == syscall.ENOENT || errno == syscall.ENOTDIR {
				m.report.step = uint32(i)
				continue
			}
		case uint8(plan.Probe):
			if errno == syscall.ENOENT || errno == syscall.ENOTDIR {
				i += uintptr(in.skip)
				continue
			}
		}
		m.report.phase, m.report.step, m.report.value = phase, uint32(i), uint32(errno)
		return false
	}
	if phase != phaseCommand {
		return true
	}
	m.report.phase, m.report.value = phase, denied
	if denied == 0 {
		m.report.value = uint32(syscall.ENOENT)
	}
	return false
}

// fail reports the failed step and ends the sandbox.
//
//go:norace
//go:nosplit
func fail(m *machine) {
	m.report.kind = reportFailed
	syscall.RawSyscall(unix.SYS_WRITE, m.status, uintptr(unsafe.Pointer(&m.report)), reportSize)
	exit(1)
}

// started tells the launcher that the payload runs and hands over its pidfd.
//
//go:norace
//go:nosplit
func started(m *machine) {
	m.report.kind = reportStarted
	m.control.fds[0] = m.pidfd
	if listener := m.regs[plan.RegListener]; listener != 0 {
		m.control.fds[1] = int32(listener)
		m.control.Len += 4 // CMSG_LEN of two; CMSG_SPACE is the same
	}
	_, _, errno := syscall.RawSyscall(unix.SYS_SENDMSG, m.status, uintptr(unsafe.Pointer(&m.msg)), unix.MSG_NOSIGNAL)
	if errno != 0 {
		exit(1) // the launcher died before the parent-death signal was set
	}
	if m.hasKeep {
		syscall.RawSyscall(unix.SYS_DUP3, m.keep, 0, 0)
	} else {
		syscall.RawSyscall(unix.SYS_CLOSE, 0, 0, 0)
	}
	syscall.RawSyscall(unix.SYS_CLOSE_RANGE, 1, m.status-1, 0)
	syscall.RawSyscall(unix.SYS_CLOSE_RANGE, m.status+1, 0xffffffff, 0)
}

// reap is the rest of process 1's life: it waits for every orphan, reports the
// payload's end, and when nothing is left waits until the launcher has done with it or
// is gone. Its own end takes longer than an answer, for the namespaces end with it, and
// would have the processor that the launcher needs for that.
//
//go:norace
//go:nosplit
func reap(m *machine, payload uintptr) {
	for {
		pid, _, errno := syscall.RawSyscall6(unix.SYS_WAIT4, ^uintptr(0), uintptr(unsafe.Pointer(&m.wait)), unix.WALL, 0, 0, 0)
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 {
			syscall.RawSyscall(unix.SYS_READ, m.status, uintptr(unsafe.Pointer(&m.scratch)), 1)
			exit(0)
		}
		if pid == payload {
			now(m)
			m.report.kind, m.report.value = reportExited, m.wait
			m.report.full = fullDisks(m)
			m.report.found = alone(m)
			syscall.RawSyscall(unix.SYS_WRITE, m.status, uintptr(unsafe.Pointer(&m.report)), reportSize)
		}
	}
}

// fullDisks has bit 2k set when disk k has no byte left, and bit 2k+1 when it
// has no inode left.
//
//go:norace
//go:nosplit
func fullDisks(m *machine) uint32 {
	var full uint32
	for i := uintptr(0); i < m.diskCount; i++ {
		_, _, errno := syscall.RawSyscall(unix.SYS_STATFS, m.disks[i&(plan.MaxDisks-1)], uintptr(unsafe.Pointer(&m.statfs)), 0)
		if errno != 0 {
			continue
		}
		if m.statfs.Blocks != 0 && m.statfs.Bfree == 0 {
			full |= 1 << ((2 * i) & 31)
		}
		if m.statfs.Files != 0 && m.statfs.Ffree == 0 {
			full |= 2 << ((2 * i) & 31)
		}
	}
	return full
}

// alone is 1 when no child is left. Every process of the namespace whose parent
// died is process 1's child, so after the payload's end that means: no process.
//
//go:norace
//go:nosplit
func alone(m *machine) uint32 {
	for {
		pid, _, errno := syscall.RawSyscall6(unix.SYS_WAIT4, ^uintptr(0), uintptr(unsafe.Pointer(&m.wait)), unix.WALL|unix.WNOHANG, 0, 0, 0)
		if errno == syscall.ECHILD {
			return 1
		}
		if errno != 0 || pid == 0 {
			return 0
		}
	}
}

//go:norace
//go:nosplit
func now(m *machine) {
	syscall.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_MONOTONIC, uintptr(unsafe.Pointer(&m.clock)), 0)
	m.report.nanos = nanos(m)
}

//go:norace
//go:nosplit
func nanos(m *machine) int64 { return m.clock.Sec*1e9 + m.clock.Nsec }

// defaultSignals undoes what the launcher or its callers ignore (nohup, a
// background job of a shell): the payload starts with every default.
//
//go:norace
//go:nosplit
func defaultSignals(m *machine) {
	for sig := uintptr(1); sig <= 64; sig++ {
		syscall.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&m.action)), 0, 8, 0, 0)
	}
	// An empty mask: m.scratch is zero.
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&m.scratch)), 0, 8, 0, 0)
}

//go:norace
//go:nosplit
func exit(code uintptr) {
	syscall.RawSyscall(unix.SYS_EXIT_GROUP, code, 0, 0)
	// A filter of the caller's own may forbid even that. A fault it cannot.
	var nowhere *uint32
	*nowhere = 0
}
