package denials

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/seccomp/bpf"
	"github.com/capsule-run/capsule/runtime/seccomp/calls"
)

// The ioctls of a listener (linux/seccomp.h).
const (
	ioctlReceive  = 0xc0502100
	ioctlSend     = 0xc0182101
	ioctlValid    = 0x40082102
	ioctlSetFlags = 0x40082104 // Linux 6.6
	flagSyncWake  = 1
	flagContinue  = 1 // SECCOMP_USER_NOTIF_FLAG_CONTINUE, of an answer
)

// notification is struct seccomp_notif, with room for a kernel that has more.
type notification struct {
	id         uint64
	pid, flags uint32
	data       bpf.Data
	_          [176]byte
}

// answer is struct seccomp_notif_resp, with room for a kernel that reads more.
type answer struct {
	id    uint64
	val   int64
	errno int32
	flags uint32
	_     [40]byte
}

// Flags are the flags for loading a filter with a listener, or 0 where the
// kernel has none. With WAIT_KILLABLE_RECV, since 5.19, a signal does not tear
// a call away that is being answered.
func Flags() uint {
	for _, flags := range []uint{unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER} {
		// Without a program: EFAULT where the flags are known.
		_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), 0)
		if errno == unix.EFAULT {
			return flags
		}
	}
	return 0
}

// Filtered says whether this process has a filter already, one of which may
// have a listener, beside which the kernel allows no second.
func Filtered() bool {
	mode, _, errno := unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_GET_SECCOMP, 0, 0, 0, 0, 0)
	return errno != 0 || mode != 0
}

// Listener serves one listener.
type Listener struct {
	fd      int
	program []bpf.Instruction
	record  *Record
	watched *Observed // nil: no call goes on
	pace    pace
}

// Serve answers refused calls until no process has the filter any more, and
// closes fd. program is the one that was loaded. With watched, calls that program
// lets go on are noted there and go on; without it they are refused as well.
func Serve(fd int, program []byte, r *Record, watched *Observed) error {
	defer unix.Close(fd)
	parsed, err := bpf.Parse(program)
	if err != nil {
		return err
	}
	l := &Listener{fd: fd, program: parsed, record: r, watched: watched, pace: newPace(time.Now())}
	// The answer's process runs at once where this one ran; EINVAL before 6.6.
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlSetFlags, flagSyncWake)
	for {
		// The read has no end of its own when the last process is gone.
		polled := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(polled, -1); err == unix.EINTR {
			continue
		} else if err != nil {
			return err
		}
		if polled[0].Revents&unix.POLLIN == 0 {
			return nil
		}
		var n notification
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlReceive, uintptr(unsafe.Pointer(&n)))
		switch errno {
		case 0:
			l.serve(&n)
		case unix.EINTR, unix.ENOENT: // ENOENT: the task died meanwhile
		default:
			return errno
		}
	}
}

// serve answers one call. Only what the program itself allows, and notifies
// because it is watched, goes on.
func (l *Listener) serve(n *notification) {
	word, _ := bpf.Run(l.program, &n.data)
	if l.watched != nil && word == bpf.RetUserNotify|bpf.NotifyContinue {
		l.watched.add(calls.Name(n.data.Arch, n.data.Number), &n.data.Args, n.pid, func() string { return l.process(n) })
		l.pace.wait(time.Now, time.Sleep)
		l.send(&answer{id: n.id, flags: flagContinue})
		return
	}
	errno := int32(unix.EPERM) // whatever else the program says: it is refused
	if word&^bpf.RetDataMask == bpf.RetUserNotify && word&bpf.RetDataMask < bpf.NotifyContinue {
		errno = int32(word & bpf.RetDataMask)
	}
	kills := word&^bpf.RetDataMask == bpf.RetUserNotify && word&bpf.NotifyKill != 0
	call, says := calls.Name(n.data.Arch, n.data.Number), unix.ErrnoName(syscall.Errno(errno))
	if kills {
		says = "killed"
	}
	l.record.add(call, says, n.pid, func() string { return arguments(call, &n.data) }, func() string { return l.process(n) })
	l.pace.wait(time.Now, time.Sleep)
	if kills {
		l.kill(call, n, errno)
		return
	}
	l.refuse(n, errno)
}

func (l *Listener) refuse(n *notification, errno int32) {
	l.send(&answer{id: n.id, errno: -errno})
}

func (l *Listener) send(a *answer) {
	_ = l.ioctl(ioctlSend, unsafe.Pointer(a)) // ENOENT: the task died, or a signal took it out of the call
}

// ioctl makes a call that waits for nothing but a lock of the kernel's, and makes it again when
// a signal to this thread, as Go's scheduler sends them, has cut the wait for that short.
func (l *Listener) ioctl(request uintptr, argument unsafe.Pointer) unix.Errno {
	for {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(l.fd), request, uintptr(argument)); errno != unix.EINTR {
			return errno
		}
	}
}

// valid says whether the call still waits: what was read under /proc by its
// task's number until now is then about that task.
func (l *Listener) valid(n *notification) bool {
	return l.ioctl(ioctlValid, unsafe.Pointer(&n.id)) == 0
}

// process is the name of the calling process, empty when it is gone.
func (l *Listener) process(n *notification) string {
	name, err := os.ReadFile("/proc/" + strconv.Itoa(int(n.pid)) + "/comm")
	if err != nil || !l.valid(n) {
		return ""
	}
	return printable(strings.TrimSuffix(string(name), "\n"))
}

// arguments shows those that explain the refusal.
func arguments(call string, d *bpf.Data) string {
	var parts []string
	for _, a := range calls.Arguments(call) {
		parts = append(parts, fmt.Sprintf("%s %#x", a.Name, uint32(d.Args[a.Index])))
	}
	return strings.Join(parts, ", ")
}

// A process that got SIGSYS is looked at again every glance, for it may have come to handle the
// signal since it was looked at, and may take settle to die: on a busy machine it does not run at
// once. What has made it die is in the verdict.
const (
	glance = 100 * time.Millisecond
	settle = 2 * time.Second
)

// kill ends the calling process as the filter's own SECCOMP_RET_KILL_PROCESS
// would: by SIGSYS, or by SIGKILL where it handles or blocks that. The call does
// not happen in any case.
func (l *Listener) kill(call string, n *notification, errno int32) {
	tgid, deaf := l.disposition(n)
	pidfd, err := unix.PidfdOpen(tgid, 0)
	if err != nil || !l.valid(n) {
		if err == nil {
			unix.Close(pidfd)
		}
		l.refuse(n, errno) // it is dead already
		return
	}
	defer unix.Close(pidfd)
	l.record.kill(call, deaf)
	if !deaf {
		// To the calling thread, which meets it on its way back from the call. Sent
		// to the process it may come to another one, and this one goes on meanwhile.
		_ = unix.Tgkill(tgid, int(n.pid), unix.SIGSYS) // ESRCH: it is dead
		l.refuse(n, errno)
		if l.dies(pidfd, n) {
			return
		}
		l.record.kill(call, true)
	}
	_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0) // ESRCH: it is dead
}

// dies waits until a process that got SIGSYS is dead. False: it goes on.
func (l *Listener) dies(pidfd int, n *notification) bool {
	for end := time.Now().Add(settle); ; {
		polled := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		ready, err := unix.Poll(polled, int(glance.Milliseconds()))
		if ready == 1 {
			return true
		}
		if err != nil && err != unix.EINTR {
			return false
		}
		if _, deaf := l.disposition(n); deaf || time.Now().After(end) {
			return false
		}
	}
}

// disposition is the process of the calling task and whether it would survive
// SIGSYS. 0 when it is gone.
func (l *Listener) disposition(n *notification) (tgid int, deaf bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(int(n.pid)) + "/status")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		switch key {
		case "Tgid":
			tgid, _ = strconv.Atoi(value) // the kernel's own number; 0 opens nothing
		case "NStgid":
			deaf = deaf || strings.HasSuffix(value, "\t1") // process 1 of its namespace does not die of it
		case "SigBlk", "SigIgn", "SigCgt":
			mask, _ := strconv.ParseUint(value, 16, 64) // likewise
			deaf = deaf || mask>>(uint(unix.SIGSYS)-1)&1 != 0
		}
	}
	return tgid, deaf
}
