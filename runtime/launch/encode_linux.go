package launch

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/spec/fault"
)

// numbers maps the operations of a plan to system call numbers.
var numbers = [plan.OpCount]uintptr{
	plan.OpRead: unix.SYS_READ, plan.OpWrite: unix.SYS_WRITE, plan.OpClose: unix.SYS_CLOSE,
	plan.OpChdir: unix.SYS_CHDIR, plan.OpFchdir: unix.SYS_FCHDIR, plan.OpOpenat: unix.SYS_OPENAT,
	plan.OpOpenat2: unix.SYS_OPENAT2, plan.OpMkdirat: unix.SYS_MKDIRAT, plan.OpSymlinkat: unix.SYS_SYMLINKAT,
	plan.OpFchmod: unix.SYS_FCHMOD, plan.OpOpenTree: unix.SYS_OPEN_TREE, plan.OpMoveMount: unix.SYS_MOVE_MOUNT,
	plan.OpMountSetattr: unix.SYS_MOUNT_SETATTR, plan.OpFsopen: unix.SYS_FSOPEN, plan.OpFsconfig: unix.SYS_FSCONFIG,
	plan.OpFsmount: unix.SYS_FSMOUNT, plan.OpMount: unix.SYS_MOUNT, plan.OpUmount2: unix.SYS_UMOUNT2,
	plan.OpPivotRoot: unix.SYS_PIVOT_ROOT, plan.OpUnshare: unix.SYS_UNSHARE, plan.OpSethostname: unix.SYS_SETHOSTNAME,
	plan.OpSetdomainname: unix.SYS_SETDOMAINNAME, plan.OpSetresuid: unix.SYS_SETRESUID, plan.OpSetresgid: unix.SYS_SETRESGID,
	plan.OpSetgroups: unix.SYS_SETGROUPS, plan.OpSetsid: unix.SYS_SETSID, plan.OpPrctl: unix.SYS_PRCTL,
	plan.OpCapset: unix.SYS_CAPSET, plan.OpPrlimit: unix.SYS_PRLIMIT64, plan.OpDup3: unix.SYS_DUP3,
	plan.OpCloseRange: unix.SYS_CLOSE_RANGE, plan.OpSeccomp: unix.SYS_SECCOMP, plan.OpSocket: unix.SYS_SOCKET,
	plan.OpIoctl: unix.SYS_IOCTL, plan.OpFaccessat: unix.SYS_FACCESSAT, plan.OpExecve: unix.SYS_EXECVE, plan.OpUmask: unix.SYS_UMASK,
	plan.OpClockGettime: unix.SYS_CLOCK_GETTIME, plan.OpKeyctl: unix.SYS_KEYCTL,
	plan.OpLandlockCreateRuleset: unix.SYS_LANDLOCK_CREATE_RULESET, plan.OpLandlockAddRule: unix.SYS_LANDLOCK_ADD_RULE,
	plan.OpLandlockRestrictSelf: unix.SYS_LANDLOCK_RESTRICT_SELF,
	plan.OpSetns:                unix.SYS_SETNS, plan.OpMknodat: unix.SYS_MKNODAT, plan.OpFchownat: unix.SYS_FCHOWNAT,
	plan.OpAccept4: unix.SYS_ACCEPT4, plan.OpFcntl: unix.SYS_FCNTL, plan.OpPersonality: unix.SYS_PERSONALITY,
	plan.OpSchedSetattr: unix.SYS_SCHED_SETATTR, plan.OpIoprioSet: unix.SYS_IOPRIO_SET, plan.OpSchedSetaffinity: unix.SYS_SCHED_SETAFFINITY,
	plan.OpSetMempolicy: unix.SYS_SET_MEMPOLICY,
}

// encoder lays the arguments of steps out in memory that the child reads by
// address. That memory is a mapping of its own: the child has no Go heap.
type encoder struct {
	arena
	mapping []byte
	machine *machine
	// Tops of the two stacks of the child.
	sandboxStack, payloadStack uintptr
	// storage is the thread pointer of the child, amid zeros.
	storage uintptr
}

// arena is memory into which programs are encoded.
type arena struct {
	data     []byte
	pointers []uintptr
	progs    []instr
	at       addresses
}

// addresses are those of the machine that arguments may refer to.
type addresses struct{ clock, regs uintptr }

// room is what the parts of an arena take.
type room struct{ data, pointers, steps int }

// parts are the sizes of instructions, pointers and data, in bytes.
func (r room) parts() [3]int {
	return [3]int{r.steps * int(unsafe.Sizeof(instr{})), r.pointers * 8, r.data + 8}
}

// newArena lays an arena out with take, which gives the next bytes of a mapping.
func newArena(r room, take func(n int) unsafe.Pointer, machine addresses) arena {
	parts := r.parts()
	return arena{
		progs:    unsafe.Slice((*instr)(take(parts[0])), r.steps)[:0],
		pointers: unsafe.Slice((*uintptr)(take(parts[1])), r.pointers)[:0],
		data:     unsafe.Slice((*byte)(take(parts[2])), parts[2])[:0],
		at:       machine,
	}
}

// taker hands out a mapping piece by piece, each on a boundary of 16 bytes.
func taker(mapping []byte) func(n int) unsafe.Pointer {
	at := unsafe.Pointer(unsafe.SliceData(mapping))
	return func(n int) unsafe.Pointer {
		p := at
		at = unsafe.Add(at, rounded(n))
		return p
	}
}

func rounded(n int) int { return (n + 15) &^ 15 }

// stackSize is the room of each of the child's stacks. The frames of the
// walker are within the linker's nosplit limit (under 1 KiB).
const stackSize = 8 << 10

// storageSize covers the offsets at which g is looked for, on both sides of
// the thread pointer: -8 on amd64, 16 on arm64, others when libc is linked.
const storageSize = 4 << 10

// measure counts what the steps need, so that each buffer is allocated once
// and never moves while addresses into it are handed out.
func measure(programs ...[]plan.Step) (r room) {
	for _, p := range programs {
		r.steps += len(p)
		for i := range p {
			for _, a := range p[i].Args {
				switch a.Kind {
				case plan.ArgString:
					r.data += len(a.S) + 1
				case plan.ArgBytes:
					r.data += align(len(a.S))
				case plan.ArgProgram:
					r.data += align(len(a.S)) + 16
				case plan.ArgVector:
					r.pointers += len(a.Vec) + 1
					for _, s := range a.Vec {
						r.data += len(s) + 1
					}
				}
				r.data += 8 // alignment
			}
		}
	}
	return r
}

func align(n int) int { return (n + 7) &^ 7 }

func newEncoder(disks []string, programs ...[]plan.Step) (*encoder, error) {
	r := measure(programs...)
	for _, path := range disks {
		r.data += len(path) + 1
	}
	if r.data > plan.MaxDataSize {
		return nil, fault.New(fault.OutOfRange, "encode plan", "arguments and environment are larger than 64 MiB").WithField("process.args")
	}
	size := 2*stackSize + rounded(int(unsafe.Sizeof(machine{}))) + rounded(storageSize)
	for _, n := range r.parts() {
		size += rounded(n)
	}
	mapping, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fault.Wrap(fault.SystemCall, "mmap", err)
	}
	e := &encoder{mapping: mapping}
	take := taker(mapping)
	stacks := uintptr(take(2 * stackSize))
	e.sandboxStack, e.payloadStack = stacks+stackSize, stacks+2*stackSize
	e.machine = (*machine)(take(int(unsafe.Sizeof(machine{}))))
	e.arena = newArena(r, take, addresses{uintptr(unsafe.Pointer(&e.machine.clock)), uintptr(unsafe.Pointer(&e.machine.regs))})
	e.machine.stack = e.payloadStack
	e.storage = uintptr(take(storageSize)) + storageSize/2
	return e, nil
}

// close unmaps the memory; the child has its own copy. Safe to call twice.
func (e *encoder) close() {
	if e.mapping != nil {
		_ = unix.Munmap(e.mapping) // it is ours and whole
		e.mapping = nil
	}
}

// keepHeap excludes the arena of the Go heap from coming forks. Without it
// every page that the launcher writes after a fork is copied first, one page
// fault each, and the sandbox's process 1 would hold a copy of the launcher's
// memory for its life.
func keepHeap() {
	const arena = 64 << 20 // heapArenaBytes of 64-bit Linux
	probe := new([64]byte)
	start := uintptr(unsafe.Pointer(probe)) &^ (arena - 1)
	// A hole gives ENOMEM after the mapped parts are marked; a heap beyond one
	// arena is forked as usual. Both only cost time.
	_, _, _ = unix.RawSyscall(unix.SYS_MADVISE, start, arena, unix.MADV_DONTFORK)
	runtime.KeepAlive(probe)
}

// put copies b to an aligned place and returns its address.
func (e *arena) put(b string, tail int) uintptr {
	start := align(len(e.data))
	e.data = e.data[:start+len(b)+tail]
	copy(e.data[start:], b)
	return e.address(start)
}

func (e *arena) address(offset int) uintptr {
	return uintptr(unsafe.Pointer(unsafe.SliceData(e.data))) + uintptr(offset)
}

// cstring copies s with its NUL; no alignment needed.
func (e *arena) cstring(s string) uintptr {
	start := len(e.data)
	e.data = append(append(e.data, s...), 0)
	return e.address(start)
}

func (e *arena) vector(v []string) uintptr {
	start := len(e.pointers)
	e.pointers = e.pointers[:start+len(v)+1]
	for i, s := range v {
		e.pointers[start+i] = e.cstring(s)
	}
	e.pointers[start+len(v)] = 0
	return uintptr(unsafe.Pointer(&e.pointers[start]))
}

// filter lays out struct sock_fprog {unsigned short len; struct sock_filter *filter}.
func (e *arena) filter(code string) uintptr {
	body := e.put(code, 0)
	head := e.put("", 16)
	*(*uint16)(unsafe.Pointer(&e.data[head-e.address(0)])) = uint16(len(code) / 8)
	*(*uintptr)(unsafe.Pointer(&e.data[head-e.address(0)+8])) = body
	return head
}

// program encodes steps.
func (e *arena) program(steps []plan.Step) program {
	start := len(e.progs)
	for i := range steps {
		s := &steps[i]
		in := instr{nr: numbers[s.Op], mode: uint8(s.Mode), skip: max(1, s.Skip), result: uint16(s.Result), expect: uintptr(s.Expect)}
		for k, a := range s.Args {
			switch a.Kind {
			case plan.ArgImm:
				in.args[k] = uintptr(a.N)
			case plan.ArgReg:
				in.args[k], in.regs = uintptr(a.N), in.regs|1<<k
			case plan.ArgString:
				in.args[k] = e.cstring(a.S)
			case plan.ArgBytes:
				in.args[k] = e.put(a.S, 0)
			case plan.ArgProgram:
				in.args[k] = e.filter(a.S)
			case plan.ArgClock:
				in.args[k] = e.at.clock
			case plan.ArgRegs:
				in.args[k] = e.at.regs + uintptr(a.N&511)*unsafe.Sizeof(uintptr(0))
			case plan.ArgVector:
				in.args[k] = e.vector(a.Vec)
			}
		}
		e.progs = append(e.progs, in)
	}
	return program{first: unsafe.SliceData(e.progs[start:]), count: uintptr(len(steps))}
}
