package spare

//lint:file-ignore U1000 Assembly calls what is here.

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/shim/shimapi"
)

// Everything in this file runs before the Go runtime exists: nothing is
// allocated, no lock taken, no stack grown, no pointer stored, no slice indexed,
// no other package called but for raw system calls. All memory is in the
// variables below.

// What the child is given. Strings end with a zero byte for the kernel.
const (
	argument    = "capsule-shim\x00"
	gc          = shimapi.EnvironmentGC + "\x00"
	memory      = shimapi.EnvironmentMemory + "\x00"
	searchPath  = shimapi.EnvironmentPath + "\x00"
	self        = "/proc/self/exe\x00"
	socketName  = "/capsuled.sock\x00"
	rootState   = "/run/capsule"
	userState   = "/capsule"
	stackSize   = 16 << 10
	pathSize    = 4096
	word        = unsafe.Sizeof(uintptr(0))
	firstUnused = shimapi.LockFD + 1
)

// early is what is known of the shim when the runtime begins.
type early struct {
	pid        uintptr // 0: there is none
	connection uintptr
	length     uintptr // of path
	path       [pathSize]byte
	socket     [pathSize]byte
	ends       [2]int32
	argv       [2]uintptr
	envp       [4]uintptr
}

var (
	storage [128]byte
	stack   [stackSize]byte
	waiting early
)

// clone is clone(2) with the given flags; the child runs shimMain on the stack.
func clone(flags, stack uintptr) (pid, errno uintptr)

// begin starts a shim if this program is about to run something by itself.
//
//go:norace
//go:nosplit
func begin(sp unsafe.Pointer) {
	w := &waiting
	argc := *(*uintptr)(sp)
	argv := unsafe.Add(sp, word)
	if !wanted(argc, argv) {
		return
	}
	// For the shim, and for this program as well, whose runtime begins after this.
	syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_TIMERSLACK, shimapi.TimerSlack, 0, 0, 0, 0)
	if !alone(w, unsafe.Add(argv, word*(argc+1))) || !beside(w) {
		return
	}
	_, _, errno := syscall.RawSyscall6(unix.SYS_SOCKETPAIR, unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0, uintptr(unsafe.Pointer(&w.ends)), 0, 0)
	if errno != 0 {
		return
	}
	if w.ends[0] > 2 { // else the caller has closed a standard stream, whose place it must not take
		w.argv[0] = uintptr(address(argument))
		w.envp[0], w.envp[1], w.envp[2] = uintptr(address(gc)), uintptr(address(memory)), uintptr(address(searchPath))
		// Without CLONE_VFORK: this process does not wait for the child's execve.
		// They share only what neither writes any more, and each has its stack. A
		// child that fails ends, and with it the connection.
		pid, failure := clone(unix.CLONE_VM|uintptr(unix.SIGCHLD), uintptr(unsafe.Pointer(&stack))+stackSize)
		if failure == 0 {
			w.pid, w.connection = pid, uintptr(w.ends[0])
		}
	}
	syscall.RawSyscall(unix.SYS_CLOSE, uintptr(w.ends[1]), 0, 0)
	if w.pid == 0 {
		syscall.RawSyscall(unix.SYS_CLOSE, uintptr(w.ends[0]), 0, 0)
	}
}

// shimMain runs in the child: its connection under every number that a shim
// uses, and nothing else of the caller's.
//
//go:norace
//go:nosplit
func shimMain() {
	w := &waiting
	// A session of its own: signals of the caller's terminal are not for it.
	syscall.RawSyscall(unix.SYS_SETSID, 0, 0, 0)
	fd, _, errno := syscall.RawSyscall(unix.SYS_FCNTL, uintptr(w.ends[1]), unix.F_DUPFD, firstUnused)
	for n := uintptr(0); n < firstUnused && errno == 0; n++ {
		_, _, errno = syscall.RawSyscall(unix.SYS_DUP3, fd, n, 0)
	}
	if errno == 0 {
		_, _, errno = syscall.RawSyscall(unix.SYS_CLOSE_RANGE, firstUnused, 0xffffffff, 0)
	}
	if errno == 0 {
		syscall.RawSyscall(unix.SYS_CHDIR, uintptr(address("/\x00")), 0, 0)
		syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(&w.path)), uintptr(unsafe.Pointer(&w.argv)), uintptr(unsafe.Pointer(&w.envp)))
	}
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 127, 0, 0)
	}
}

// wanted tells whether the arguments are those of a run that needs a shim.
//
//go:norace
//go:nosplit
func wanted(argc uintptr, argv unsafe.Pointer) bool {
	if argc < 2 || !begins(at(argv, 1), "run\x00") {
		return false
	}
	for i := uintptr(2); i < argc; i++ {
		arg := at(argv, i)
		if begins(arg, "--\x00") {
			return true
		}
		if begins(arg, "--help\x00") || begins(arg, "-h\x00") || begins(arg, "--address") {
			return false
		}
	}
	return true
}

// alone tells whether the environment leaves the choice of the shim to this
// program and no daemon has its socket in the state directory.
//
//go:norace
//go:nosplit
func alone(w *early, envp unsafe.Pointer) bool {
	var state, runtime unsafe.Pointer
	for ; at(envp, 0) != nil; envp = unsafe.Add(envp, word) {
		e := at(envp, 0)
		switch {
		case begins(e, "CAPSULE_SHIM="), begins(e, "CAPSULE_ADDRESS="):
			return false
		case state == nil && begins(e, "CAPSULE_STATE="): // of several the first counts, as in os.Getenv
			state = unsafe.Add(e, len("CAPSULE_STATE="))
		case runtime == nil && begins(e, "XDG_RUNTIME_DIR="):
			runtime = unsafe.Add(e, len("XDG_RUNTIME_DIR="))
		}
	}
	to := unsafe.Pointer(&w.socket)
	end := unsafe.Add(to, pathSize)
	uid, _, _ := syscall.RawSyscall(unix.SYS_GETEUID, 0, 0, 0)
	switch {
	case state != nil && char(state, 0) != 0:
		to = add(to, end, state)
	case uid == 0:
		to = add(to, end, address(rootState+"\x00"))
	case runtime != nil:
		to = add(add(to, end, runtime), end, address(userState+"\x00"))
	default:
		return false
	}
	add(to, end, address(socketName))
	_, _, errno := syscall.RawSyscall(unix.SYS_ACCESS, uintptr(unsafe.Pointer(&w.socket)), 0, 0)
	return errno == unix.ENOENT
}

// beside makes the path of the shim beside this program.
//
//go:norace
//go:nosplit
func beside(w *early) bool {
	path := unsafe.Pointer(&w.path)
	n, _, errno := syscall.RawSyscall(unix.SYS_READLINK, uintptr(address(self)), uintptr(path), pathSize-uintptr(len(argument)))
	if errno != 0 {
		return false
	}
	for n > 0 && char(path, n-1) != '/' {
		n--
	}
	w.length = uintptr(add(unsafe.Add(path, n), unsafe.Add(path, pathSize), address(argument))) - uintptr(path)
	return n > 0
}

// add copies a string that ends with zero and returns where that zero is. What
// is too long is cut off.
//
//go:norace
//go:nosplit
func add(to, end, from unsafe.Pointer) unsafe.Pointer {
	for ; char(from, 0) != 0 && uintptr(to)+1 < uintptr(end); from = unsafe.Add(from, 1) {
		*(*byte)(to) = char(from, 0)
		to = unsafe.Add(to, 1)
	}
	*(*byte)(to) = 0
	return to
}

// begins tells whether the string at p begins with prefix.
//
//go:norace
//go:nosplit
func begins(p unsafe.Pointer, prefix string) bool {
	q := address(prefix)
	for i := uintptr(0); i < uintptr(len(prefix)); i++ {
		if char(p, i) != char(q, i) {
			return false
		}
	}
	return true
}

//go:norace
//go:nosplit
func address(s string) unsafe.Pointer { return unsafe.Pointer(unsafe.StringData(s)) }

//go:norace
//go:nosplit
func at(p unsafe.Pointer, i uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Add(p, word*i)) }

//go:norace
//go:nosplit
func char(p unsafe.Pointer, i uintptr) byte { return *(*byte)(unsafe.Add(p, i)) }
