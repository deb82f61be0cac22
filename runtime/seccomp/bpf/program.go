package bpf

import (
	"encoding/binary"
	"fmt"

	"github.com/capsule-run/capsule/spec/fault"
)

// MaxInstructions is the kernel's bound on one program (BPF_MAXINSNS).
const MaxInstructions = 4096

// InstructionSize is the size of a struct sock_filter in bytes.
const InstructionSize = 8

// Instruction is a struct sock_filter.
type Instruction struct {
	// Code is the operation.
	Code uint16
	// Jt and Jf are the instructions to skip when a condition holds or fails.
	Jt, Jf uint8
	// K is the operand.
	K uint32
}

// The operations that libseccomp emits, as in linux/bpf_common.h.
const (
	codeLoad = 0x20 // A = word of struct seccomp_data at offset K
	codeAnd  = 0x54 // A &= K
	codeJA   = 0x05 // skip K instructions
	codeJEQ  = 0x15 // A == K
	codeJGT  = 0x25 // A > K
	codeJGE  = 0x35 // A >= K
	codeJSET = 0x45 // A & K != 0
	codeRet  = 0x06 // answer K
)

// Data is the struct seccomp_data that a program judges.
type Data struct {
	// Number is the system call number, as the kernel passes it.
	Number uint32
	// Arch is the AUDIT_ARCH value of the table that the call went through.
	Arch uint32
	// InstructionPointer is the address of the call.
	InstructionPointer uint64
	// Args are the six argument registers in full.
	Args [6]uint64
}

// The AUDIT_ARCH values of the architectures that tests and listings name.
const (
	ArchAMD64 = 0xc000003e
	ArchI386  = 0x40000003
	ArchARM64 = 0xc00000b7
	ArchARM   = 0x40000028
)

// X32Bit marks a call through the x32 table of amd64.
const X32Bit = 0x40000000

// Parse decodes a program in native byte order and checks what the kernel
// checks: its length, known operations, aligned loads, jumps that stay inside,
// and an answer at the end. E2003 otherwise.
func Parse(raw []byte) ([]Instruction, error) {
	if len(raw) == 0 || len(raw)%InstructionSize != 0 || len(raw) > MaxInstructions*InstructionSize {
		return nil, invalid(fmt.Sprintf("%d bytes are no program", len(raw)))
	}
	program := make([]Instruction, len(raw)/InstructionSize)
	for i := range program {
		b := raw[i*InstructionSize:]
		program[i] = Instruction{
			Code: binary.NativeEndian.Uint16(b), Jt: b[2], Jf: b[3],
			K: binary.NativeEndian.Uint32(b[4:]),
		}
	}
	for i, in := range program {
		if problem := check(in, len(program)-i-1); problem != "" {
			return nil, invalid(fmt.Sprintf("instruction %d: %s", i, problem))
		}
	}
	if program[len(program)-1].Code != codeRet {
		return nil, invalid("the last instruction is no answer")
	}
	return program, nil
}

func invalid(message string) error {
	return fault.New(fault.Seccomp, "read filter program", message)
}

// check names what is wrong with an instruction that has rest instructions after it.
func check(in Instruction, rest int) string {
	switch in.Code {
	case codeLoad:
		if in.K%4 != 0 || in.K >= 64 {
			return fmt.Sprintf("load at offset %d", in.K)
		}
	case codeAnd, codeRet:
	case codeJA:
		if uint64(in.K) >= uint64(rest) {
			return "jump past the end"
		}
	case codeJEQ, codeJGT, codeJGE, codeJSET:
		if int(in.Jt) >= rest || int(in.Jf) >= rest {
			return "jump past the end"
		}
	default:
		return fmt.Sprintf("unknown operation %#x", in.Code)
	}
	return ""
}

// Run evaluates a program that Parse accepted and returns the kernel's action
// word: SECCOMP_RET_* with its data, and the number of instructions walked.
func Run(program []Instruction, d *Data) (answer uint32, steps int) {
	var acc uint32
	for pc := 0; ; pc++ {
		steps++
		in := program[pc]
		switch in.Code {
		case codeLoad:
			acc = d.word(in.K)
		case codeAnd:
			acc &= in.K
		case codeJA:
			pc += int(in.K)
		case codeRet:
			return in.K, steps
		default:
			if holds(in, acc) {
				pc += int(in.Jt)
			} else {
				pc += int(in.Jf)
			}
		}
	}
}

func holds(in Instruction, acc uint32) bool {
	switch in.Code {
	case codeJEQ:
		return acc == in.K
	case codeJGT:
		return acc > in.K
	case codeJGE:
		return acc >= in.K
	default: // codeJSET; Parse admits no other.
		return acc&in.K != 0
	}
}

// word is the 32-bit word at an offset of the structure. Both supported
// architectures are little-endian: the low half of an argument comes first.
func (d *Data) word(offset uint32) uint32 {
	switch offset {
	case 0:
		return d.Number
	case 4:
		return d.Arch
	case 8:
		return uint32(d.InstructionPointer)
	case 12:
		return uint32(d.InstructionPointer >> 32)
	}
	arg := d.Args[(offset-16)/8]
	if offset%8 == 4 {
		return uint32(arg >> 32)
	}
	return uint32(arg)
}
