package bpf

import (
	"fmt"
	"strings"
)

// CallNamer names a system call number of an AUDIT_ARCH, or returns "".
type CallNamer func(arch, number uint32) string

// contents says what the accumulator holds before an instruction.
type contents int

const (
	unreached contents = -2
	mixed     contents = -1 // Different paths bring different words.
	// Zero and above: the offset of the loaded word.
)

// Disassemble prints a program that Parse accepted, one instruction a line
// with absolute jump targets, and names what each comparison is about. namer
// may be nil.
func Disassemble(program []Instruction, namer CallNamer) string {
	held := follow(program)
	arch := firstArch(program, held)
	var b strings.Builder
	for i, in := range program {
		text, note := describe(program, i, held[i])
		if namer != nil && held[i] == 0 && (in.Code == codeJEQ || in.Code == codeJGE || in.Code == codeJGT) {
			if name := namer(arch, in.K); name != "" {
				note = name
			}
		}
		if note != "" {
			text = fmt.Sprintf("%-40s; %s", text, note)
		}
		fmt.Fprintf(&b, "%4d  %s\n", i, text)
	}
	return b.String()
}

// follow computes, forward since jumps only go forward, what the accumulator
// holds before each instruction.
func follow(program []Instruction) []contents {
	held := make([]contents, len(program))
	for i := range held {
		held[i] = unreached
	}
	held[0] = mixed
	reach := func(at int, c contents) {
		if held[at] == unreached {
			held[at] = c
		} else if held[at] != c {
			held[at] = mixed
		}
	}
	for i, in := range program {
		switch in.Code {
		case codeLoad:
			reach(i+1, contents(in.K))
		case codeAnd:
			reach(i+1, held[i])
		case codeJA:
			reach(i+1+int(in.K), held[i])
		case codeRet:
		default:
			reach(i+1+int(in.Jt), held[i])
			reach(i+1+int(in.Jf), held[i])
		}
	}
	return held
}

// firstArch is the first architecture that the program compares with.
func firstArch(program []Instruction, held []contents) uint32 {
	for i, in := range program {
		if held[i] == 4 && in.Code == codeJEQ {
			return in.K
		}
	}
	return 0
}

func describe(program []Instruction, i int, held contents) (text, note string) {
	in := program[i]
	switch in.Code {
	case codeLoad:
		return "ld " + wordName(contents(in.K)), ""
	case codeAnd:
		return fmt.Sprintf("and 0x%x", in.K), ""
	case codeJA:
		return fmt.Sprintf("ja %d", i+1+int(in.K)), ""
	case codeRet:
		return "ret " + ActionName(in.K), ""
	}
	mnemonic := map[uint16]string{codeJEQ: "jeq", codeJGT: "jgt", codeJGE: "jge", codeJSET: "jset"}[in.Code]
	operand := fmt.Sprintf("0x%x", in.K)
	if held == 0 && in.K < X32Bit {
		operand = fmt.Sprintf("%d", in.K)
	}
	if held == 4 {
		note = archName(in.K)
	}
	return fmt.Sprintf("%s %s, %d, %d", mnemonic, operand, i+1+int(in.Jt), i+1+int(in.Jf)), note
}

func wordName(offset contents) string {
	switch {
	case offset == 0:
		return "nr"
	case offset == 4:
		return "arch"
	case offset < 16:
		return fmt.Sprintf("ip[%d]", (offset-8)/4)
	case offset%8 == 0:
		return fmt.Sprintf("args[%d].low", (offset-16)/8)
	default:
		return fmt.Sprintf("args[%d].high", (offset-16)/8)
	}
}

func archName(value uint32) string {
	switch value {
	case ArchAMD64:
		return "AUDIT_ARCH_X86_64"
	case ArchI386:
		return "AUDIT_ARCH_I386"
	case ArchARM64:
		return "AUDIT_ARCH_AARCH64"
	case ArchARM:
		return "AUDIT_ARCH_ARM"
	}
	return ""
}

// The actions of seccomp(2), without their data.
const (
	RetKillProcess = 0x80000000
	RetKillThread  = 0x00000000
	RetTrap        = 0x00030000
	RetErrno       = 0x00050000
	RetUserNotify  = 0x7fc00000
	RetTrace       = 0x7ff00000
	RetLog         = 0x7ffc0000
	RetAllow       = 0x7fff0000
	// RetDataMask selects the data of an action: for RetErrno the errno.
	RetDataMask = 0x0000ffff
)

// ActionName names an action word: "allow", "errno 1", "kill process".
func ActionName(answer uint32) string {
	data := answer & RetDataMask
	switch answer &^ RetDataMask {
	case RetKillProcess:
		return "kill process"
	case RetKillThread:
		return "kill thread"
	case RetTrap:
		return "trap"
	case RetErrno:
		return fmt.Sprintf("errno %d", data)
	case RetUserNotify:
		switch {
		case data&NotifyKill != 0:
			return "notify, kill process"
		case data&NotifyContinue != 0:
			return "notify, allow"
		}
		return fmt.Sprintf("notify, errno %d", data)
	case RetTrace:
		return fmt.Sprintf("trace %d", data)
	case RetLog:
		return "log"
	case RetAllow:
		return "allow"
	}
	return fmt.Sprintf("0x%x", answer)
}
