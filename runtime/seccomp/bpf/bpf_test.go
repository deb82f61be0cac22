package bpf

import (
	"encoding/binary"
	"strings"
	"testing"
)

func encode(program []Instruction) []byte {
	var raw []byte
	for _, in := range program {
		raw = binary.NativeEndian.AppendUint16(raw, in.Code)
		raw = append(raw, in.Jt, in.Jf)
		raw = binary.NativeEndian.AppendUint32(raw, in.K)
	}
	return raw
}

// sample allows call 1, and call 2 when the low half of argument 1 has bit 4
// clear; it uses each operation once.
var sample = []Instruction{
	{Code: codeLoad, K: 4},
	{Code: codeJEQ, K: ArchAMD64, Jf: 8},
	{Code: codeLoad, K: 0},
	{Code: codeJGT, K: 2, Jt: 6},
	{Code: codeJEQ, K: 1, Jt: 6},
	{Code: codeJGE, K: 2, Jf: 4},
	{Code: codeLoad, K: 24},
	{Code: codeAnd, K: 0xff},
	{Code: codeJSET, K: 0x10, Jt: 1},
	{Code: codeJA, K: 1},
	{Code: codeRet, K: RetErrno | 1},
	{Code: codeRet, K: RetAllow},
}

func TestRun(t *testing.T) {
	program, err := Parse(encode(sample))
	if err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		data Data
		want uint32
	}{
		{Data{Arch: ArchI386, Number: 1}, RetErrno | 1},
		{Data{Arch: ArchAMD64, Number: 0}, RetErrno | 1},
		{Data{Arch: ArchAMD64, Number: 1}, RetAllow},
		{Data{Arch: ArchAMD64, Number: 2}, RetAllow},
		{Data{Arch: ArchAMD64, Number: 2, Args: [6]uint64{0, 0x10}}, RetErrno | 1},
		{Data{Arch: ArchAMD64, Number: 2, Args: [6]uint64{0x10, 0x10_0000_0000}}, RetAllow},
		{Data{Arch: ArchAMD64, Number: 3}, RetErrno | 1},
	}
	for _, tc := range cases {
		if got, _ := Run(program, &tc.data); got != tc.want {
			t.Errorf("%+v: %s, want %s", tc.data, ActionName(got), ActionName(tc.want))
		}
	}
	d := Data{Number: 1, Arch: 2, InstructionPointer: 4<<32 | 3, Args: [6]uint64{6<<32 | 5, 0, 0, 0, 0, 8<<32 | 7}}
	for offset, want := range map[uint32]uint32{0: 1, 4: 2, 8: 3, 12: 4, 16: 5, 20: 6, 56: 7, 60: 8} {
		if got := d.word(offset); got != want {
			t.Errorf("word %d is %d, want %d", offset, got, want)
		}
	}
}

func TestDisassemble(t *testing.T) {
	program, err := Parse(encode(sample))
	if err != nil {
		t.Fatal(err)
	}
	got := Disassemble(program, func(_, number uint32) string { return map[uint32]string{1: "write"}[number] })
	want := `   0  ld arch
   1  jeq 0xc000003e, 2, 10                   ; AUDIT_ARCH_X86_64
   2  ld nr
   3  jgt 2, 10, 4
   4  jeq 1, 11, 5                            ; write
   5  jge 2, 6, 10
   6  ld args[1].low
   7  and 0xff
   8  jset 0x10, 10, 9
   9  ja 11
  10  ret errno 1
  11  ret allow
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestParseRefuses(t *testing.T) {
	ret := Instruction{Code: codeRet}
	cases := map[string][]byte{
		"empty":              nil,
		"odd length":         make([]byte, 12),
		"too long":           make([]byte, (MaxInstructions+1)*8),
		"no answer":          encode([]Instruction{{Code: codeAnd}}),
		"unknown operation":  encode([]Instruction{{Code: 0x28}, ret}),
		"unaligned load":     encode([]Instruction{{Code: codeLoad, K: 2}, ret}),
		"load past the data": encode([]Instruction{{Code: codeLoad, K: 64}, ret}),
		"jump past the end":  encode([]Instruction{{Code: codeJA, K: 1}, ret}),
		"huge jump":          encode([]Instruction{{Code: codeJA, K: 0xffffffff}, ret}),
		"true past the end":  encode([]Instruction{{Code: codeJEQ, Jt: 1}, ret}),
		"false past the end": encode([]Instruction{{Code: codeJEQ, Jf: 1}, ret}),
	}
	for name, raw := range cases {
		if program, err := Parse(raw); err == nil || !strings.HasPrefix(err.Error(), "E2003") {
			t.Errorf("%s: %v %v", name, program, err)
		}
	}
}

func TestActionName(t *testing.T) {
	for answer, want := range map[uint32]string{
		RetKillProcess: "kill process", RetKillThread: "kill thread", RetTrap: "trap", RetErrno | 38: "errno 38",
		RetUserNotify: "notify, errno 0", RetTrace | 7: "trace 7", RetLog: "log", RetAllow: "allow", 0x12345678: "0x12345678",
	} {
		if got := ActionName(answer); got != want {
			t.Errorf("%#x: %s, want %s", answer, got, want)
		}
	}
}

// FuzzParse: whatever Parse accepts can be walked and printed.
func FuzzParse(f *testing.F) {
	f.Add(encode(sample), uint64(2))
	f.Add([]byte{}, uint64(0))
	f.Fuzz(func(t *testing.T, raw []byte, x uint64) {
		program, err := Parse(raw)
		if err != nil {
			return
		}
		d := Data{Number: uint32(x), Arch: uint32(x >> 32), InstructionPointer: x, Args: [6]uint64{x, x, x, x, x, x}}
		if _, steps := Run(program, &d); steps > len(program) {
			t.Errorf("%d steps in %d instructions", steps, len(program))
		}
		if lines := strings.Count(Disassemble(program, nil), "\n"); lines != len(program) {
			t.Errorf("%d lines for %d instructions", lines, len(program))
		}
	})
}
