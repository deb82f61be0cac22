#include "textflag.h"

// capsule_entry is where the kernel begins the program; SP points to argc, argv
// and the environment. Calls from assembly to Go load g from thread-local
// storage, which is not there yet: until the runtime sets its own, it is
// storage, all zero. Nosplit code never uses g.
TEXT capsule_entry(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	MOVQ	SP, R12
	ANDQ	$~15, SP
	SUBQ	$64, SP
	MOVQ	R12, 32(SP)
	LEAQ	·storage(SB), SI
	ADDQ	$64, SI
	MOVQ	$0x1002, DI	// ARCH_SET_FS
	MOVL	$158, AX	// SYS_arch_prctl
	SYSCALL
	MOVQ	R12, 0(SP)
	CALL	·begin(SB)
	MOVQ	32(SP), SP
	JMP	_rt0_amd64_linux(SB)

// func clone(flags, stack uintptr) (pid, errno uintptr)
//
// clone(2) with CLONE_VM; the child runs shimMain on the given stack in the
// shared memory.
TEXT ·clone(SB),NOSPLIT,$0-32
	MOVQ	flags+0(FP), DI
	MOVQ	stack+8(FP), SI
	XORL	DX, DX
	XORL	R10, R10
	XORL	R8, R8
	MOVL	$56, AX		// SYS_clone
	SYSCALL
	TESTQ	AX, AX
	JEQ	child
	CMPQ	AX, $0xfffffffffffff001
	JCC	failed
	MOVQ	AX, pid+16(FP)
	MOVQ	$0, errno+24(FP)
	RET
failed:
	NEGQ	AX
	MOVQ	$0, pid+16(FP)
	MOVQ	AX, errno+24(FP)
	RET
child:
	SUBQ	$16, SP
	CALL	·shimMain(SB)
	INT	$3
