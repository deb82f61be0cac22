package attack

import (
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// call is one system call of an attack: its number and arguments, each an int,
// a string, a []byte or the result of an earlier call.
type call struct {
	nr   uintptr
	args []any
}

// result is the index of an earlier call of the same attack.
type result int

// raw is a call as the forked child needs it.
type raw struct {
	nr   uintptr
	args [6]uintptr
	from [6]int // 1 + index of the call whose result it is
	got  uintptr
}

// forked makes the calls one after the other in a forked child with a single
// thread, as unshare and setns want it, and gives "ok", the errno of the last
// call, "step N ERRNO" when an earlier one failed, or the signal that came.
func forked(calls ...call) string {
	prepared := make([]raw, len(calls))
	var keep []*byte
	for i, c := range calls {
		prepared[i].nr = c.nr
		for k, a := range c.args {
			switch a := a.(type) {
			case int:
				prepared[i].args[k] = uintptr(a)
			case uint64:
				prepared[i].args[k] = uintptr(a)
			case result:
				prepared[i].from[k] = 1 + int(a)
			case string:
				p, err := unix.BytePtrFromString(a)
				if err != nil {
					return err.Error()
				}
				keep = append(keep, p)
				prepared[i].args[k] = uintptr(unsafe.Pointer(p))
			case []byte:
				keep = append(keep, unsafe.SliceData(a))
				prepared[i].args[k] = uintptr(unsafe.Pointer(unsafe.SliceData(a)))
			default:
				panic("not an argument of a system call")
			}
		}
	}
	// The child answers through a page that both see: what is 32 bit wide does
	// not fit an exit status.
	page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return err.Error()
	}
	defer unix.Munmap(page)
	answer := (*[2]uintptr)(unsafe.Pointer(unsafe.SliceData(page)))
	pid := fork(prepared, answer)
	var status unix.WaitStatus
	for {
		if _, err := unix.Wait4(pid, &status, unix.WALL, nil); err != unix.EINTR {
			break
		}
	}
	_ = keep
	if status.Signaled() {
		return unix.SignalName(status.Signal())
	}
	step, errno := int(answer[0]), syscall.Errno(answer[1])
	switch {
	case errno == 0:
		return "ok"
	case step == len(calls)-1:
		return errnoName(errno)
	}
	return "step " + strconv.Itoa(step) + " " + errnoName(errno)
}

// fork makes the child. In it only this thread exists, so it calls nothing
// but the kernel.
//
//go:noinline
//go:norace
func fork(calls []raw, answer *[2]uintptr) int {
	pid, _, _ := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if pid != 0 {
		return int(pid)
	}
	for i := range calls {
		c := &calls[i]
		for k := range c.args {
			if c.from[k] > 0 {
				c.args[k] = calls[c.from[k]-1].got
			}
		}
		got, _, errno := syscall.RawSyscall6(c.nr, c.args[0], c.args[1], c.args[2], c.args[3], c.args[4], c.args[5])
		if (c.nr == unix.SYS_CLONE || c.nr == unix.SYS_CLONE3) && errno == 0 && got == 0 {
			break // the grandchild has nothing to say
		}
		c.got = got
		answer[0], answer[1] = uintptr(i), uintptr(errno)
		if errno != 0 {
			break
		}
	}
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}

// errnoName is "ok", or the symbol of an error from the kernel.
func errnoName(err error) string {
	if err == nil {
		return "ok"
	}
	var errno syscall.Errno
	if e, ok := asErrno(err); ok {
		errno = e
	}
	if name := unix.ErrnoName(errno); name != "" {
		return name
	}
	return err.Error()
}
