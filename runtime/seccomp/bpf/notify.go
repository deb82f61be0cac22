package bpf

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/capsule-run/capsule/spec/fault"
)

// The data of SECCOMP_RET_USER_NOTIF. The kernel ignores it; whoever serves the
// listener runs the program again on the call and finds there what to answer.
// Without a mark the data is the errno.
const (
	// NotifyKill: the process is to be killed, as by SECCOMP_RET_KILL_PROCESS.
	NotifyKill = 0x4000
	// NotifyContinue: the call is allowed and only recorded.
	NotifyContinue = 0x2000
	// notifyErrno selects the errno.
	notifyErrno = 0x0fff
)

// Mark, in the data of SECCOMP_RET_TRACE, stands for a notification with the
// rest of the data while a program is made.
const Mark = 0x8000

// rewrite is a copy of a program with other answers.
func rewrite(raw []byte, change func(answer uint32) uint32) []byte {
	out := slices.Clone(raw)
	for i := 0; i+InstructionSize <= len(out); i += InstructionSize {
		if binary.NativeEndian.Uint16(out[i:]) == codeRet {
			k := out[i+4 : i+8]
			binary.NativeEndian.PutUint32(k, change(binary.NativeEndian.Uint32(k)))
		}
	}
	return out
}

// Unmark turns traces with Mark into notifications.
func Unmark(raw []byte) []byte {
	return rewrite(raw, func(answer uint32) uint32 {
		if answer&^RetDataMask == RetTrace && answer&Mark != 0 {
			return RetUserNotify | answer&(RetDataMask&^Mark)
		}
		return answer
	})
}

// Notify turns traces with just this data into notifications.
func Notify(raw []byte, data uint32) []byte {
	return rewrite(raw, func(answer uint32) uint32 {
		if answer == RetTrace|data {
			return RetUserNotify
		}
		return answer
	})
}

// Plain is the program for a process without a listener: what would be notified
// is answered by the kernel, and nobody learns of it.
func Plain(raw []byte) []byte {
	return rewrite(raw, func(answer uint32) uint32 {
		if answer&^RetDataMask != RetUserNotify {
			return answer
		}
		switch {
		case answer&NotifyKill != 0:
			return RetKillProcess
		case answer&NotifyContinue != 0:
			return RetAllow
		}
		return RetErrno | answer&notifyErrno
	})
}

// Notifies says whether a program has answers for a listener.
func Notifies(raw []byte) bool {
	for i := 0; i+InstructionSize <= len(raw); i += InstructionSize {
		if binary.NativeEndian.Uint16(raw[i:]) == codeRet && binary.NativeEndian.Uint32(raw[i+4:])&^uint32(RetDataMask) == RetUserNotify {
			return true
		}
	}
	return false
}

// Chain makes one program of two that answers as both would if both were
// loaded, save that a refusal of the first is final: what it lets through
// (SECCOMP_RET_ALLOW, LOG and TRACE) is asked of the second. E2003 when the
// result is longer than the kernel takes.
func Chain(first, second []byte) ([]byte, error) {
	out := slices.Clone(first)
	starts := map[uint32]int{}
	for at := 0; at < len(first); at += InstructionSize {
		answer := binary.NativeEndian.Uint32(first[at+4:])
		if binary.NativeEndian.Uint16(first[at:]) != codeRet || !permissive(answer) {
			continue
		}
		start, known := starts[answer]
		if !known {
			start = len(out)
			starts[answer] = start
			out = append(out, rewrite(second, func(a uint32) uint32 {
				if a == RetAllow {
					return answer
				}
				return a
			})...)
		}
		binary.NativeEndian.PutUint16(out[at:], codeJA)
		binary.NativeEndian.PutUint32(out[at+4:], uint32((start-at)/InstructionSize-1))
		if len(out) > MaxInstructions*InstructionSize {
			return nil, fault.New(fault.Seccomp, "", fmt.Sprintf("with what no filter may allow, the program has more than the kernel's %d instructions", MaxInstructions))
		}
	}
	return out, nil
}

// permissive says whether an answer lets the call through, or may.
func permissive(answer uint32) bool {
	switch answer &^ RetDataMask {
	case RetAllow, RetLog, RetTrace:
		return true
	}
	return false
}
