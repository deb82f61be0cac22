package attack

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sweptLast is the last number of the sweep; x32 the bit of the numbers of x32.
const (
	sweptLast = 600
	x32       = 0x40000000
)

// sweep makes every system call from 0 to 600, those of x32 and, by int 0x80,
// those of i386, with hostile and random arguments, for as long as it is told
// ("MILLISECONDS,SEED"). Each call is made by a child of its own, which may
// die, hang or fork: what is left of it is killed. A call may end the sweep
// itself; whoever started it sees that.
func sweep(text string) string {
	milliseconds, seed, _ := strings.Cut(text, ",")
	n, err := strconv.Atoi(milliseconds)
	if err != nil {
		return err.Error()
	}
	first, err := strconv.ParseUint(seed, 10, 64)
	if err != nil {
		return err.Error()
	}
	r := rand.New(rand.NewPCG(first, 1))
	page, err := unix.Mmap(-1, 0, 1<<16, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return errnoName(err)
	}
	end := time.Now().Add(time.Duration(n) * time.Millisecond)
	made := 0
	for time.Now().Before(end) {
		var c raw
		how := r.IntN(5)
		c.nr = uintptr(r.IntN(sweptLast + 1))
		if how == 0 {
			c.nr |= x32
		}
		for k := range c.args {
			c.args[k] = hostileArgument(r, page)
		}
		sweepOne(&c, how == 1 && hasInt80)
		made++
	}
	return fmt.Sprint("made ", made > 0)
}

// hostileArgument is a value that a careless kernel or filter stumbles over.
func hostileArgument(r *rand.Rand, page []byte) uintptr {
	inside := uintptr(unsafe.Pointer(unsafe.SliceData(page)))
	switch r.IntN(10) {
	case 0:
		return 0
	case 1:
		return ^uintptr(0)
	case 2:
		return uintptr(r.IntN(16))
	case 3:
		for i := 0; i < 256; i += 8 {
			*(*uint64)(unsafe.Pointer(&page[i])) = r.Uint64() >> r.IntN(64)
		}
		return inside
	case 4:
		copy(page[1024:], []string{"/proc/self/exe\x00", "/dev/null\x00", "/tmp/x\x00", "/../../etc/passwd\x00", "/proc/1/mem\x00", "/\x00"}[r.IntN(6)])
		return inside + 1024
	case 5:
		return inside + uintptr(len(page)) - uintptr(r.IntN(16))
	case 6:
		return 0xffff800000000000 | uintptr(r.Uint64()>>20)
	case 7:
		return uintptr(1) << r.IntN(64)
	case 8:
		return uintptr(r.Uint32())
	}
	return uintptr(r.Uint64())
}

// sweepOne makes a call in a child and ends the child.
func sweepOne(c *raw, old bool) {
	pid := forkSweep(c, old)
	if pid <= 0 {
		time.Sleep(time.Millisecond) // the limit of processes: earlier children are still ending
		return
	}
	for end := time.Now().Add(15 * time.Millisecond); ; time.Sleep(50 * time.Microsecond) {
		got, err := unix.Wait4(pid, nil, unix.WNOHANG|unix.WALL, nil)
		if got == pid || err == unix.ECHILD {
			return
		}
		if time.Now().After(end) {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// forkSweep makes the child, in which only this thread exists.
//
//go:noinline
//go:norace
func forkSweep(c *raw, old bool) int {
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return -1
	}
	if pid != 0 {
		return int(pid)
	}
	if old {
		int80(c.nr, c.args[0], c.args[1], c.args[2])
	} else {
		syscall.RawSyscall6(c.nr, c.args[0], c.args[1], c.args[2], c.args[3], c.args[4], c.args[5])
	}
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}

// compatible makes calls by each of the ways that could go past a filter for
// 64-bit numbers, and says what came of it: getpid and mount of x32, then of
// i386.
func compatible(string) string {
	said := []string{forked(call{x32 | unix.SYS_GETPID, nil}), forked(call{x32 | unix.SYS_MOUNT, []any{"none", "/tmp", "tmpfs", 0, 0}})}
	if hasInt80 {
		for _, nr := range []uintptr{20, 21} {
			said = append(said, byInt80(nr))
		}
	}
	return strings.Join(said, " ")
}

// byInt80 makes a call by i386's number in a child of its own.
func byInt80(nr uintptr) string {
	pid := forkSweep(&raw{nr: nr}, true)
	var status unix.WaitStatus
	for {
		if _, err := unix.Wait4(pid, &status, unix.WALL, nil); err != unix.EINTR {
			break
		}
	}
	if status.Signaled() {
		return unix.SignalName(status.Signal())
	}
	return "ended"
}
