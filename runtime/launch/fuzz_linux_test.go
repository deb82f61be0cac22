package launch

import (
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/plan"
)

// FuzzEncode lays arguments of any length out and reads them back by address,
// as the child does: each is whole, ends with its NUL and touches no other.
func FuzzEncode(f *testing.F) {
	f.Add("a\xffbc\xff\xff0123456789", uint8(7))
	f.Add("", uint8(0))
	f.Add(strings.Repeat("x\xff", 300), uint8(255))
	f.Fuzz(func(t *testing.T, text string, kinds uint8) {
		steps := fuzzSteps(text, kinds)
		enc, err := newEncoder(nil, steps)
		if err != nil {
			t.Fatal(err)
		}
		defer enc.close()
		p := enc.program(steps)
		if int(p.count) != len(steps) {
			t.Fatalf("%d of %d steps", p.count, len(steps))
		}
		for i := range steps {
			in := (*instr)(unsafe.Add(unsafe.Pointer(p.first), uintptr(i)*unsafe.Sizeof(instr{})))
			for k, a := range steps[i].Args {
				checkArgument(t, enc, in.args[k], a)
			}
		}
	})
}

// fuzzSteps makes steps of the parts between bytes 0xff.
func fuzzSteps(text string, kinds uint8) []plan.Step {
	var steps []plan.Step
	parts := strings.Split(text, "\xff")
	if len(parts) > 500 {
		parts = parts[:500]
	}
	for i, part := range parts {
		part = strings.ReplaceAll(part, "\x00", "0")
		a := plan.Arg{Kind: []plan.ArgKind{plan.ArgString, plan.ArgBytes, plan.ArgVector}[(i+int(kinds))%3], S: part}
		if a.Kind == plan.ArgVector {
			a.S, a.Vec = "", []string{part, "", part}
		}
		steps = append(steps, plan.Step{Op: plan.Op(1 + i%(plan.OpCount-1)), Args: []plan.Arg{a, {N: int64(i)}, a}})
	}
	return steps
}

func checkArgument(t *testing.T, enc *encoder, value uintptr, a plan.Arg) {
	t.Helper()
	read := func(address uintptr, n int) string {
		offset := address - uintptr(unsafe.Pointer(unsafe.SliceData(enc.mapping)))
		if int(offset) < 0 || int(offset)+n > len(enc.mapping) {
			t.Fatalf("address %x lies outside", address)
		}
		return string(enc.mapping[offset : int(offset)+n])
	}
	switch a.Kind {
	case plan.ArgString:
		if got := read(value, len(a.S)+1); got != a.S+"\x00" {
			t.Errorf("%q is laid out as %q", a.S, got)
		}
	case plan.ArgBytes:
		if got := read(value, len(a.S)); got != a.S || value%8 != 0 {
			t.Errorf("%q is laid out as %q at %x", a.S, got, value)
		}
	case plan.ArgVector:
		for i, s := range a.Vec {
			pointer := read(value+uintptr(8*i), 8)
			address := *(*uintptr)(unsafe.Pointer(unsafe.StringData(pointer)))
			if got := read(address, len(s)+1); got != s+"\x00" {
				t.Errorf("%q is laid out as %q", s, got)
			}
		}
		if read(value+uintptr(8*len(a.Vec)), 8) != strings.Repeat("\x00", 8) {
			t.Error("a vector has no end")
		}
	}
}

// FuzzReport sends any message in place of process 1: the launcher says what it
// makes of it and neither hangs nor panics.
func FuzzReport(f *testing.F) {
	r := report{kind: reportFailed, phase: phaseSetup, step: 1, value: uint32(unix.ENOENT)}
	for _, kind := range []uint32{0, reportFailed, reportStarted, reportExited, reportReady, 99} {
		r.kind = kind
		f.Add(string(unsafe.Slice((*byte)(unsafe.Pointer(&r)), reportSize)))
	}
	r.kind, r.step = reportFailed, 1<<31
	f.Add(string(unsafe.Slice((*byte)(unsafe.Pointer(&r)), reportSize)))
	f.Add("x")
	f.Fuzz(func(t *testing.T, message string) {
		if len(message) > 4096 {
			return
		}
		ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = unix.Write(ends[1], []byte(message))
		unix.Close(ends[1])
		s := &Sandbox{plan: fuzzPlan(), pidfd: -1, payload: -1, status: ends[0]}
		defer unix.Close(ends[0])
		if err != nil {
			return
		}
		r, _, err := s.receive()
		if err == nil && r.kind == reportFailed && s.stepFault(r) == nil {
			t.Errorf("a failure without a fault: %+v", r)
		}
	})
}

func fuzzPlan() *plan.Plan {
	step := plan.Step{Op: plan.OpExecve, Args: []plan.Arg{{Kind: plan.ArgString, S: "a"}, {Kind: plan.ArgVector, Vec: []string{"a"}}, {Kind: plan.ArgVector}}}
	other := plan.Step{Op: plan.OpMkdirat, Path: "/x", Field: "root"}
	return &plan.Plan{HasInit: true, Setup: []plan.Step{other, other}, Payload: []plan.Step{other, step}, Init: []plan.Step{other}}
}
