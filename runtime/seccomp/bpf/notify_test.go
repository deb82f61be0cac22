package bpf

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
)

// assemble is the raw form of a program.
func assemble(program ...Instruction) []byte {
	var raw []byte
	for _, in := range program {
		raw = binary.NativeEndian.AppendUint16(raw, in.Code)
		raw = append(raw, in.Jt, in.Jf)
		raw = binary.NativeEndian.AppendUint32(raw, in.K)
	}
	return raw
}

// byNumber answers the numbers 0, 1, ... with the answers, the last for all others.
func byNumber(answers ...uint32) []byte {
	program := []Instruction{{Code: codeLoad}}
	for i, a := range answers[:len(answers)-1] {
		program = append(program, Instruction{Code: codeJEQ, K: uint32(i), Jf: 1}, Instruction{Code: codeRet, K: a})
	}
	return assemble(append(program, Instruction{Code: codeRet, K: answers[len(answers)-1]})...)
}

func answers(t *testing.T, raw []byte, n int) []uint32 {
	t.Helper()
	program, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	var out []uint32
	for i := range n {
		a, _ := Run(program, &Data{Number: uint32(i)})
		out = append(out, a)
	}
	return out
}

func TestMarks(t *testing.T) {
	made := byNumber(RetTrace|Mark|1, RetTrace|Mark|NotifyKill, RetTrace|5, RetErrno|2, RetAllow)
	loaded := Unmark(made)
	for i, want := range []uint32{RetUserNotify | 1, RetUserNotify | NotifyKill, RetTrace | 5, RetErrno | 2, RetAllow} {
		if got := answers(t, loaded, 5)[i]; got != want {
			t.Errorf("call %d: %s, want %s", i, ActionName(got), ActionName(want))
		}
	}
	for i, want := range []uint32{RetErrno | 1, RetKillProcess, RetTrace | 5, RetErrno | 2, RetAllow} {
		if got := answers(t, Plain(loaded), 5)[i]; got != want {
			t.Errorf("call %d without a listener: %s, want %s", i, ActionName(got), ActionName(want))
		}
	}
	if !Notifies(loaded) || Notifies(Plain(loaded)) || Notifies(made) {
		t.Error("what notifies is not told from what does not")
	}
}

// TestChain compares random chains with what two loaded programs would answer.
func TestChain(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	kinds := []uint32{RetAllow, RetLog, RetTrace | 7, RetErrno | 1, RetUserNotify | 1, RetUserNotify | NotifyKill, RetKillProcess, RetTrap, RetKillThread}
	for range 1000 {
		var a, b []uint32
		for range 10 {
			a = append(a, kinds[random.IntN(len(kinds))])
			b = append(b, kinds[random.IntN(len(kinds))])
		}
		raw, err := Chain(byNumber(a...), byNumber(b...))
		if err != nil {
			t.Fatal(err)
		}
		for i, got := range answers(t, raw, 10) {
			want := a[i]
			if permissive(want) && b[i] != RetAllow {
				want = b[i]
			}
			if got != want {
				t.Fatalf("%s, then %s: %s", ActionName(a[i]), ActionName(b[i]), ActionName(got))
			}
		}
	}
	long := make([]uint32, MaxInstructions/2-1)
	if _, err := Chain(byNumber(append(long, RetAllow)...), byNumber(long...)); err == nil {
		t.Error("a program longer than the kernel takes")
	}
}

// TestAudit: what is allowed is watched, unless it is left alone; what is refused
// stays so, on every table.
func TestAudit(t *testing.T) {
	made := byNumber(RetAllow, RetErrno|1, RetAllow, RetUserNotify|2, RetAllow, RetKillProcess)
	for _, unwatched := range [][]uint32{{}, {2}, {2, 4}, {4, 1, 2}} {
		raw := Audit(made, 0, unwatched...)
		for i, got := range answers(t, raw, 6) {
			want := answers(t, made, 6)[i]
			if want == RetAllow && !slices.Contains(unwatched, uint32(i)) {
				want = RetUserNotify | NotifyContinue
			}
			if got != want {
				t.Errorf("unwatched %v: call %d: %s, want %s", unwatched, i, ActionName(got), ActionName(want))
			}
		}
		program, err := Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := Run(program, &Data{Number: 2, Arch: 7}); got != RetUserNotify|NotifyContinue {
			t.Errorf("unwatched %v, another table: %s", unwatched, ActionName(got))
		}
		for i, got := range answers(t, Plain(raw), 6) {
			if want := answers(t, Plain(made), 6)[i]; got != want {
				t.Errorf("without a listener, call %d: %s, want %s", i, ActionName(got), ActionName(want))
			}
		}
	}
}
