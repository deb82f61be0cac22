//go:build cgo && !noseccomp

package libseccomp

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/capsule-run/capsule/runtime/seccomp/bpf"
	"github.com/capsule-run/capsule/spec/fault"
)

// object compiles JSON for amd64.
func object(text string) ([]bpf.Instruction, error) {
	s, err := Decode([]byte(text))
	if err != nil {
		return nil, err
	}
	raw, err := Compile(s, "amd64")
	if err != nil {
		return nil, err
	}
	return bpf.Parse(raw)
}

// The numbers of calls on amd64 that the tables use.
const (
	numberRead  = 0
	numberIoctl = 16
)

func TestCompileSemantics(t *testing.T) {
	deny := func(args string) string {
		return `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["ioctl"],"action":"SCMP_ACT_ERRNO","errnoRet":5,"args":[` + args + `]}]}`
	}
	on := func(value uint64) bpf.Data {
		return bpf.Data{Number: numberIoctl, Arch: bpf.ArchAMD64, Args: [6]uint64{0, value}}
	}
	const allow, eio = bpf.RetAllow, bpf.RetErrno | 5
	plain := bpf.Data{Number: numberRead, Arch: bpf.ArchAMD64}
	cases := []struct {
		name, object string
		data         bpf.Data
		want         uint32
	}{
		{"EQ", deny(`{"index":1,"value":7,"op":"SCMP_CMP_EQ"}`), on(7), eio},
		{"EQ compares 64 bits", deny(`{"index":1,"value":7,"op":"SCMP_CMP_EQ"}`), on(1<<32 | 7), allow},
		{"NE", deny(`{"index":1,"value":7,"op":"SCMP_CMP_NE"}`), on(7), allow},
		{"NE other", deny(`{"index":1,"value":7,"op":"SCMP_CMP_NE"}`), on(1<<32 | 7), eio},
		{"LT", deny(`{"index":1,"value":7,"op":"SCMP_CMP_LT"}`), on(6), eio},
		{"LT equal", deny(`{"index":1,"value":7,"op":"SCMP_CMP_LT"}`), on(7), allow},
		{"LE", deny(`{"index":1,"value":7,"op":"SCMP_CMP_LE"}`), on(7), eio},
		{"LE over", deny(`{"index":1,"value":7,"op":"SCMP_CMP_LE"}`), on(1<<32 | 3), allow},
		{"GT", deny(`{"index":1,"value":7,"op":"SCMP_CMP_GT"}`), on(8), eio},
		{"GT high word", deny(`{"index":1,"value":7,"op":"SCMP_CMP_GT"}`), on(1 << 32), eio},
		{"GT equal", deny(`{"index":1,"value":7,"op":"SCMP_CMP_GT"}`), on(7), allow},
		{"GE", deny(`{"index":1,"value":7,"op":"SCMP_CMP_GE"}`), on(7), eio},
		{"GE under", deny(`{"index":1,"value":7,"op":"SCMP_CMP_GE"}`), on(6), allow},
		{"MASKED_EQ", deny(`{"index":1,"value":240,"valueTwo":16,"op":"SCMP_CMP_MASKED_EQ"}`), on(0x1f), eio},
		{"MASKED_EQ other", deny(`{"index":1,"value":240,"valueTwo":16,"op":"SCMP_CMP_MASKED_EQ"}`), on(0x2f), allow},
		{"conditions are joined", deny(`{"index":1,"value":7,"op":"SCMP_CMP_EQ"},{"index":2,"value":9,"op":"SCMP_CMP_EQ"}`), on(7), allow},
		{"conditions on one argument are alternatives", deny(`{"index":1,"value":7,"op":"SCMP_CMP_EQ"},{"index":1,"value":9,"op":"SCMP_CMP_EQ"}`), on(9), eio},
		{"default errno is EPERM", `{"defaultAction":"SCMP_ACT_ERRNO"}`, plain, bpf.RetErrno | 1},
		{"default errno", `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":95}`, plain, bpf.RetErrno | 95},
		{"kill", `{"defaultAction":"SCMP_ACT_KILL"}`, plain, bpf.RetKillThread},
		{"kill thread", `{"defaultAction":"SCMP_ACT_KILL_THREAD"}`, plain, bpf.RetKillThread},
		{"kill process", `{"defaultAction":"SCMP_ACT_KILL_PROCESS"}`, plain, bpf.RetKillProcess},
		{"trap", `{"defaultAction":"SCMP_ACT_TRAP"}`, plain, bpf.RetTrap},
		{"trace", `{"defaultAction":"SCMP_ACT_TRACE","defaultErrnoRet":3}`, plain, bpf.RetTrace | 3},
		{"log", `{"defaultAction":"SCMP_ACT_LOG"}`, plain, bpf.RetLog},
		{"i386 is foreign", `{"defaultAction":"SCMP_ACT_ALLOW"}`, bpf.Data{Arch: bpf.ArchI386}, bpf.RetKillProcess},
		{"i386 is listed", `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"]}`, bpf.Data{Arch: bpf.ArchI386}, allow},
		{"the target is always accepted", `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"]}`, plain, allow},
		{"x32 is foreign", `{"defaultAction":"SCMP_ACT_ALLOW"}`, bpf.Data{Number: bpf.X32Bit, Arch: bpf.ArchAMD64}, bpf.RetKillProcess},
		{"a rule like the default", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}`, plain, allow},
		{"an unknown call stays denied", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["no_such_call","read"],"action":"SCMP_ACT_ALLOW"}]}`, plain, allow},
		{"a call of other architectures", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["set_tls"],"action":"SCMP_ACT_KILL"}]}`, plain, allow},
		{"flags without effect", `{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_TSYNC","SECCOMP_FILTER_FLAG_LOG","SECCOMP_FILTER_FLAG_SPEC_ALLOW"]}`, plain, allow},
		{"an exception from a wider rule", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["ioctl"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":255,"valueTwo":3,"op":"SCMP_CMP_MASKED_EQ"}]},{"names":["ioctl"],"action":"SCMP_ACT_ERRNO","errnoRet":5,"args":[{"index":1,"value":1,"valueTwo":1,"op":"SCMP_CMP_MASKED_EQ"}]}]}`, on(3), allow},
	}
	for _, tc := range cases {
		program, err := object(tc.object)
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if got, _ := bpf.Run(program, &tc.data); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, bpf.ActionName(got), bpf.ActionName(tc.want))
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	rule := func(rest string) string { return `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{` + rest + `}]}` }
	var many strings.Builder
	for i := range maxRules {
		fmt.Fprintf(&many, `"n%d",`, i)
	}
	cases := []struct{ name, object, field string }{
		{"nothing", ``, "linux.seccomp"},
		{"null", `null`, "linux.seccomp"},
		{"a list", `[]`, "linux.seccomp"},
		{"cut off", `{"defaultAction":`, "linux.seccomp"},
		{"two objects", `{"defaultAction":"SCMP_ACT_ALLOW"}{}`, "linux.seccomp"},
		{"unknown key", `{"defaultAction":"SCMP_ACT_ALLOW","archMap":[]}`, "linux.seccomp"},
		{"duplicate key", `{"defaultAction":"SCMP_ACT_ERRNO","defaultAction":"SCMP_ACT_ALLOW"}`, "linux.seccomp"},
		{"other case", `{"DefaultAction":"SCMP_ACT_ALLOW"}`, "linux.seccomp"},
		{"too large", `{"defaultAction":"` + strings.Repeat("x", MaxObjectSize) + `"}`, "linux.seccomp"},
		{"no default", `{}`, "linux.seccomp.defaultAction"},
		{"unknown default", `{"defaultAction":"allow"}`, "linux.seccomp"},
		{"errno of allow", `{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":1}`, "linux.seccomp"},
		{"errno too large", `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":4096}`, "linux.seccomp"},
		{"notify", rule(`"names":["read"],"action":"SCMP_ACT_NOTIFY"`), "linux.seccomp.syscalls[0]"},
		{"listener", `{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x"}`, "linux.seccomp.listenerPath"},
		{"unknown flag", `{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_LOG","SECCOMP_FILTER_FLAG_NEW_LISTENER"]}`, "linux.seccomp.flags[1]"},
		{"unknown architecture", `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_VAX"]}`, "linux.seccomp.architectures[0]"},
		{"architecture by another name", `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["amd64"]}`, "linux.seccomp.architectures[0]"},
		{"no names", rule(`"names":[],"action":"SCMP_ACT_KILL"`), "linux.seccomp.syscalls[0].names"},
		{"no action", rule(`"names":["read"]`), "linux.seccomp.syscalls[0]"},
		{"argument 6", rule(`"names":["read"],"action":"SCMP_ACT_KILL","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]`), "linux.seccomp.syscalls[0].args[0].index"},
		{"unknown operator", rule(`"names":["read"],"action":"SCMP_ACT_KILL","args":[{"index":0,"value":0,"op":"=="}]`), "linux.seccomp.syscalls[0].names[0]"},
		{"unknown call to deny", rule(`"names":["read","no_such_call"],"action":"SCMP_ACT_ERRNO"`), "linux.seccomp.syscalls[0].names[1]"},
		{"too many rules", rule(`"names":[` + many.String() + `"read"],"action":"SCMP_ACT_KILL"`), "linux.seccomp.syscalls"},
		{"a denial that an allowance swallows", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
			{"names":["ioctl"],"action":"SCMP_ACT_ALLOW"},
			{"names":["ioctl"],"action":"SCMP_ACT_KILL","args":[{"index":1,"value":21522,"op":"SCMP_CMP_EQ"}]}]}`, "linux.seccomp.syscalls[1].names[0]"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			_, err := object(tc.object)
			var f *fault.Fault
			if !errors.As(err, &f) || f.Code != fault.Seccomp || f.Field != tc.field {
				t.Fatalf("got %v, want E2003 about %s", err, tc.field)
			}
		})
	}
	if s, err := Decode([]byte(`{"defaultAction":"SCMP_ACT_ALLOW"}`)); err != nil {
		t.Error(err)
	} else if _, err := Compile(s, "vax"); !errors.Is(err, &fault.Fault{Code: fault.Seccomp}) {
		t.Errorf("vax: %v", err)
	}
	if _, err := Compile(nil, "amd64"); !errors.Is(err, &fault.Fault{Code: fault.Seccomp}) {
		t.Errorf("nil: %v", err)
	}
}

// FuzzObject: whatever is accepted gives a program that the parser accepts.
func FuzzObject(f *testing.F) {
	f.Add(`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["ioctl"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":255,"valueTwo":3,"op":"SCMP_CMP_MASKED_EQ"}]}]}`)
	f.Add(`{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86","SCMP_ARCH_X32"],"syscalls":[{"names":["read","write"],"action":"SCMP_ACT_KILL"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := object(text); err != nil && !errors.Is(err, &fault.Fault{Code: fault.Seccomp}) {
			t.Errorf("%v has no E2003", err)
		}
	})
}

func BenchmarkCompileDefault(b *testing.B) {
	for b.Loop() {
		compiledRaw(b, "default", "amd64", binaryTree)
	}
}
