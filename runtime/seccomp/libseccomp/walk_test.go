//go:build cgo && !noseccomp

package libseccomp

import (
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	binding "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/seccomp"
	"github.com/capsule-run/capsule/runtime/seccomp/bpf"
)

// model answers calls by reading the rules one after the other, as a person would.
type model struct {
	profile *specs.LinuxSeccomp
	arch    uint32
	// byNumber has the rules of each call, indices into profile.Syscalls.
	byNumber map[uint32][]int
}

func newModel(t *testing.T, name, goarch string) *model {
	t.Helper()
	profile := profileOf(t, name, goarch)
	m := &model{profile: profile, arch: auditArch(goarch), byNumber: map[uint32][]int{}}
	arch := map[string]binding.ScmpArch{"amd64": binding.ArchAMD64, "arm64": binding.ArchARM64}[goarch]
	for i, rule := range profile.Syscalls {
		for _, call := range rule.Names {
			number, err := binding.GetSyscallFromNameByArch(call, arch)
			if err != nil {
				t.Fatalf("%s: %v", call, err)
			}
			if number >= 0 { // Negative: the architecture lacks the call.
				m.byNumber[uint32(number)] = append(m.byNumber[uint32(number)], i)
			}
		}
	}
	return m
}

// answer is what the profile says about a call: the answer of the rule that
// compares the most bits, the default when none matches, death for foreign tables.
func (m *model) answer(t *testing.T, d *bpf.Data) uint32 {
	x32 := m.arch == bpf.ArchAMD64 && d.Number >= bpf.X32Bit && d.Number != 0xffffffff
	if d.Arch != m.arch || x32 {
		return bpf.RetUserNotify | bpf.NotifyKill
	}
	best, answer := -1, word(m.profile.DefaultAction, m.profile.DefaultErrnoRet)
	for _, i := range m.byNumber[d.Number] {
		rule := &m.profile.Syscalls[i]
		compared, all := 0, true
		for _, c := range rule.Args {
			if c.Op != specs.OpMaskedEqual {
				t.Fatalf("the model does not know %s", c.Op)
			}
			all = all && d.Args[c.Index]&c.Value == c.ValueTwo
			compared += bits.OnesCount64(c.Value)
		}
		if !all || compared < best {
			continue
		}
		w := word(rule.Action, rule.ErrnoRet)
		if compared == best && w != answer {
			t.Fatalf("two rules of call %d are equally specific", d.Number)
		}
		best, answer = compared, w
	}
	return answer
}

func word(action specs.LinuxSeccompAction, errno *uint) uint32 {
	switch action {
	case specs.ActAllow:
		return bpf.RetAllow
	case specs.ActErrno:
		return bpf.RetErrno | uint32(*errno)
	case specs.ActNotify:
		return bpf.RetUserNotify | uint32(*errno)
	default:
		return bpf.RetUserNotify | bpf.NotifyKill
	}
}

// edges are values around everything that the rules of a call compare an
// argument with, and such that differ from them in one bit only.
func (m *model) edges(number uint32, index uint) []uint64 {
	values := []uint64{0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 1 << 32, 1 << 63, ^uint64(0)}
	for _, i := range m.byNumber[number] {
		for _, c := range m.profile.Syscalls[i].Args {
			if c.Index != index {
				continue
			}
			for _, v := range []uint64{c.Value, c.ValueTwo} {
				values = append(values, v, v-1, v+1, ^v, v|^c.Value, v|1<<32, v|0xffffffff<<32)
				for bit := range 64 {
					values = append(values, v^1<<bit)
				}
			}
		}
	}
	slices.Sort(values)
	return slices.Compact(values)
}

// pairs says whether a rule of the call compares the arguments 0 and 2.
func (m *model) pairs(number uint32) bool {
	for _, i := range m.byNumber[number] {
		if args := m.profile.Syscalls[i].Args; len(args) == 2 && args[0].Index == 0 && args[1].Index == 2 {
			return true
		}
	}
	return false
}

func (m *model) compare(t *testing.T, program []bpf.Instruction, d bpf.Data) {
	t.Helper()
	got, _ := bpf.Run(program, &d)
	if want := m.answer(t, &d); got != want {
		t.Fatalf("call %d (%s) of %#x with %#x: program says %s, rules say %s",
			d.Number, CallName(d.Arch, d.Number), d.Arch, d.Args, bpf.ActionName(got), bpf.ActionName(want))
	}
}

// TestWalk compares every profile's program, as tree and as list, with the
// model: each number, each edge of each argument, pairs of edges, random
// arguments, the x32 numbers and foreign architectures.
func TestWalk(t *testing.T) {
	for _, name := range names() {
		for _, goarch := range goarches {
			t.Run(name+"/"+goarch, func(t *testing.T) {
				m := newModel(t, name, goarch)
				for _, optimize := range []int{1, binaryTree} {
					m.walk(t, compiled(t, name, goarch, optimize))
				}
			})
		}
	}
}

func (m *model) walk(t *testing.T, program []bpf.Instruction) {
	random := rand.New(rand.NewPCG(1, 2))
	numbers := []uint32{0x3fffffff, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff}
	for n := range uint32(1101) {
		numbers = append(numbers, n, n|bpf.X32Bit)
	}
	for _, number := range numbers {
		for _, arch := range []uint32{bpf.ArchAMD64, bpf.ArchI386, bpf.ArchARM64, bpf.ArchARM, 0, 0xffffffff} {
			m.compare(t, program, bpf.Data{Number: number, Arch: arch})
		}
		d := bpf.Data{Number: number, Arch: m.arch}
		for range 20 {
			for i := range d.Args {
				d.Args[i] = random.Uint64() >> random.IntN(64)
			}
			m.compare(t, program, d)
		}
	}
	for number := range m.byNumber {
		for first := range uint(6) {
			for _, a := range m.edges(number, first) {
				d := bpf.Data{Number: number, Arch: m.arch}
				d.Args[first] = a
				m.compare(t, program, d)
				if first != 0 || !m.pairs(number) {
					continue
				}
				for _, b := range m.edges(number, 2) {
					d.Args[2] = b
					m.compare(t, program, d)
				}
			}
		}
	}
}

// TestNumbers checks the library's table of amd64, on which the model and the
// compiler both rest, against the kernel's headers as x/sys has them.
func TestNumbers(t *testing.T) {
	for name, want := range map[string]int{
		"read": unix.SYS_READ, "ioctl": unix.SYS_IOCTL, "socket": unix.SYS_SOCKET, "clone": unix.SYS_CLONE,
		"clone3": unix.SYS_CLONE3, "ptrace": unix.SYS_PTRACE, "mount": unix.SYS_MOUNT, "bpf": unix.SYS_BPF,
		"io_uring_setup": unix.SYS_IO_URING_SETUP, "open_tree": unix.SYS_OPEN_TREE, "setns": unix.SYS_SETNS,
		"unshare": unix.SYS_UNSHARE, "keyctl": unix.SYS_KEYCTL, "userfaultfd": unix.SYS_USERFAULTFD,
		"perf_event_open": unix.SYS_PERF_EVENT_OPEN, "execve": unix.SYS_EXECVE, "mknodat": unix.SYS_MKNODAT,
	} {
		got, err := binding.GetSyscallFromName(name)
		if err != nil || int(got) != want {
			t.Errorf("%s is %d, the headers say %d; %v", name, got, want, err)
		}
	}
}

// TestFloor: whatever no filter of a caller may allow, no profile allows.
func TestFloor(t *testing.T) {
	for _, goarch := range goarches {
		floor := newModel(t, "floor", goarch)
		below := compiled(t, "floor", goarch, binaryTree)
		for _, name := range seccomp.Names() {
			program := compiled(t, name, goarch, binaryTree)
			refused := 0
			check := func(d bpf.Data) {
				if answer, _ := bpf.Run(below, &d); answer == bpf.RetAllow {
					return
				}
				refused++
				if answer, _ := bpf.Run(program, &d); answer == bpf.RetAllow {
					t.Errorf("%s for %s allows %s with %#x", name, goarch, CallName(d.Arch, d.Number), d.Args)
				}
			}
			for number := range floor.byNumber {
				for first := range uint(5) {
					for _, a := range floor.edges(number, first) {
						d := bpf.Data{Number: number, Arch: floor.arch}
						d.Args[first] = a
						check(d)
						d.Args[first+1] = 0xc00
						check(d)
					}
				}
			}
			if refused < 1000 {
				t.Errorf("only %d calls were compared", refused)
			}
		}
	}
}
