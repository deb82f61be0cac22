package bpf

import "encoding/binary"

// Audit is a program that answers as raw does, except that a call which raw
// allows is notified with NotifyContinue. The calls of unwatched, on the table
// of arch, are left to raw as it is: those that nobody can answer.
//
// What raw refuses stays refused by the kernel or by the listener. A listener may
// let a notified call go on because the program has judged it by its registers,
// which only the calling thread can change, and that waits.
func Audit(raw []byte, arch uint32, unwatched ...uint32) []byte {
	watched := rewrite(raw, func(answer uint32) uint32 {
		if answer&^uint32(RetDataMask) == RetAllow {
			return RetUserNotify | NotifyContinue
		}
		return answer
	})
	// arch, number, one comparison for each call, a jump to raw, watched, raw.
	n := uint32(len(unwatched))
	if n == 0 {
		return watched
	}
	var head []byte
	emit := func(in Instruction) {
		head = binary.NativeEndian.AppendUint16(head, in.Code)
		head = append(head, in.Jt, in.Jf)
		head = binary.NativeEndian.AppendUint32(head, in.K)
	}
	emit(Instruction{Code: codeLoad, K: 4})
	emit(Instruction{Code: codeJEQ, Jf: uint8(n + 2), K: arch}) // another table: all of it is watched's
	emit(Instruction{Code: codeLoad, K: 0})
	for i, call := range unwatched {
		// To the jump to raw, behind the last comparison; the last one that fails
		// passes over it.
		in := Instruction{Code: codeJEQ, Jt: uint8(n - uint32(i) - 1), K: call}
		if i == len(unwatched)-1 {
			in.Jf = 1
		}
		emit(in)
	}
	emit(Instruction{Code: codeJA, K: uint32(len(watched) / InstructionSize)})
	return append(append(head, watched...), raw...)
}
