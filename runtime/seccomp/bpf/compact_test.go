package bpf

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// ladder is a program in libseccomp's form: a comparison for each number, the
// answers behind it, and what looks at an argument where there is one.
func ladder(random *rand.Rand, numbers int) []Instruction {
	kinds := []uint32{RetAllow, RetErrno | 1, RetUserNotify | 1}
	var body []Instruction
	var kind int
	for i := range numbers {
		if random.IntN(4) == 0 {
			kind = random.IntN(len(kinds))
		}
		answer := Instruction{Code: codeRet, K: kinds[kind]}
		number := uint32(i)
		switch random.IntN(12) {
		case 0: // an argument, and the number again for what follows
			body = append(body, Instruction{Code: codeJEQ, K: number, Jf: 4}, Instruction{Code: codeLoad, K: 16 + 4*uint32(random.IntN(12))},
				Instruction{Code: codeAnd, K: 0xf0}, Instruction{Code: codeJSET, K: 0x10, Jf: 1}, answer, Instruction{Code: codeLoad})
		case 1:
			body = append(body, Instruction{Code: codeJGE, K: number + 1, Jt: 1}, Instruction{Code: codeJGT, K: number / 2, Jf: 1}, Instruction{Code: codeJA, K: 1}, answer)
		default:
			body = append(body, Instruction{Code: codeJEQ, K: number, Jf: 1}, answer)
		}
	}
	body = append(body, Instruction{Code: codeRet, K: RetErrno | 38}, Instruction{Code: codeRet, K: RetKillProcess})
	if len(body) > 200 {
		// A condition does not reach the end.
		body = slices.Insert(body, 0, Instruction{Code: codeJA, K: 1}, Instruction{Code: codeRet, K: RetKillProcess})
		return append([]Instruction{{Code: codeLoad, K: 4}, {Code: codeJEQ, K: ArchAMD64, Jf: 2}, {Code: codeLoad}}, body...)
	}
	return append([]Instruction{{Code: codeLoad, K: 4}, {Code: codeJEQ, K: ArchAMD64, Jf: uint8(len(body))}, {Code: codeLoad}}, body...)
}

// compacted is what Compact makes of a program.
func compacted(t *testing.T, raw []byte) []Instruction {
	t.Helper()
	short, err := Compact(raw)
	if err != nil {
		t.Fatal(err)
	}
	program, err := Parse(short)
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// TestCompact compares what random programs answer before and after.
func TestCompact(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	shorter := 0
	for range 300 {
		raw := encode(ladder(random, 1+random.IntN(300)))
		before, err := Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		after := compacted(t, raw)
		if len(after) < len(before) {
			shorter++
		}
		for range 3000 {
			d := Data{Arch: ArchAMD64, Number: uint32(random.IntN(1000))}
			switch random.IntN(20) {
			case 0:
				d.Arch = ArchI386
			case 1:
				d.Number = random.Uint32()
			case 2:
				d.Number = math.MaxUint32
			}
			for i := range d.Args {
				d.Args[i] = random.Uint64()
			}
			want, _ := Run(before, &d)
			if got, _ := Run(after, &d); got != want {
				t.Fatalf("%+v: %s, want %s\n%s\n%s", d, ActionName(got), ActionName(want), Disassemble(before, nil), Disassemble(after, nil))
			}
		}
	}
	if shorter < 200 {
		t.Errorf("%d of 300 became shorter", shorter)
	}
}

// TestCompactLeavesAlone: what is not in libseccomp's form stays as it is, also where it
// could become shorter.
func TestCompactLeavesAlone(t *testing.T) {
	allow, deny := Instruction{Code: codeRet, K: RetAllow}, Instruction{Code: codeRet, K: RetErrno | 1}
	var rungs []Instruction
	for i := range uint32(12) {
		rungs = append(rungs, Instruction{Code: codeJEQ, K: 20 + i, Jf: 1}, deny)
	}
	rungs = append(rungs, allow, deny)
	load, number := Instruction{Code: codeLoad, K: 4}, Instruction{Code: codeLoad}
	arch := func(body ...Instruction) Instruction {
		return Instruction{Code: codeJEQ, K: ArchAMD64, Jf: uint8(len(body) + len(rungs))}
	}
	program := func(head []Instruction, odd ...Instruction) []Instruction { return slices.Concat(head, odd, rungs) }
	usual := func(odd ...Instruction) []Instruction {
		return program([]Instruction{load, arch(odd...), number}, odd...)
	}
	if short, err := Compact(encode(usual())); err != nil || len(short) >= len(encode(usual())) {
		t.Errorf("the usual form: %d bytes, %v", len(short), err)
	}
	for name, program := range map[string][]Instruction{
		"one answer":                {allow},
		"no architecture":           program([]Instruction{number, arch(), number}),
		"an argument for it":        program([]Instruction{{Code: codeLoad, K: 16}, arch(), number}),
		"no number":                 program([]Instruction{load, arch(), {Code: codeLoad, K: 16}}),
		"more of another":           slices.Concat([]Instruction{load, {Code: codeJEQ, K: ArchAMD64, Jf: uint8(len(rungs) + 1)}, number}, rungs, []Instruction{number, {Code: codeJEQ, K: 5, Jf: 1}, allow, deny}),
		"arithmetic on a number":    usual(Instruction{Code: codeAnd, K: 1}),
		"a bit of a number":         usual(Instruction{Code: codeJSET, K: 9, Jf: 1}, allow),
		"a comparison that is true": usual(Instruction{Code: codeJGE, K: 0, Jf: 1}, allow),
		"one that is false":         usual(Instruction{Code: codeJGT, K: math.MaxUint32, Jf: 1}, deny),
	} {
		raw := encode(program)
		if _, err := Parse(raw); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := Compact(raw); err != nil || !slices.Equal(got, raw) {
			t.Errorf("%s: %d bytes of %d, %v", name, len(got), len(raw), err)
		}
	}
	if _, err := Compact([]byte{1}); err == nil {
		t.Error("no program is compacted")
	}
}

// TestEqual: a program that differs in one answer, one bound or one look at an argument is
// not taken for the same.
func TestEqual(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for range 50 {
		before := ladder(random, 40)
		old := decisionsOf(before)
		if !equal(before, old, before, old) {
			t.Fatal("a program is not equal to itself")
		}
		short := lay(shorten(before, old))
		for i := range short {
			for name, change := range map[string]func(in *Instruction){
				"constant": func(in *Instruction) { in.K ^= 0x200 },
				"way":      func(in *Instruction) { in.Jt, in.Jf = in.Jf, in.Jt },
				"code": func(in *Instruction) {
					in.Code = map[uint16]uint16{codeJEQ: codeJSET, codeJGE: codeJGT, codeJSET: codeJEQ}[in.Code]
				},
			} {
				other := slices.Clone(short)
				change(&other[i])
				if _, err := Parse(encode(other)); err != nil || other[i] == short[i] || short[i].Code == codeJA {
					continue
				}
				if equal(before, old, other, decisionsOf(other)) {
					t.Errorf("the %s of instruction %d does not matter:\n%s", name, i, Disassemble(short, nil))
				}
			}
		}
	}
}

// FuzzCompact: whatever comes in, what comes out answers the same.
func FuzzCompact(f *testing.F) {
	f.Add(encode(sample), uint32(2), uint64(1))
	f.Add(encode(ladder(rand.New(rand.NewPCG(7, 8)), 20)), uint32(7), uint64(0x10))
	f.Fuzz(func(t *testing.T, raw []byte, number uint32, argument uint64) {
		before, err := Parse(raw)
		if err != nil {
			return
		}
		after := compacted(t, raw)
		for _, arch := range []uint32{ArchAMD64, ArchI386, before[0].K} {
			for _, n := range []uint32{number, number + 1, number - 1, 0, math.MaxUint32} {
				d := Data{Arch: arch, Number: n, Args: [6]uint64{argument, argument, argument, argument, argument, argument}}
				want, _ := Run(before, &d)
				if got, _ := Run(after, &d); got != want {
					t.Fatalf("%+v: %s, want %s", d, ActionName(got), ActionName(want))
				}
			}
		}
	})
}
