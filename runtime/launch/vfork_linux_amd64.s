#include "textflag.h"

// func vforkPayload(flags, stack uintptr, m *machine, pidfd *int32) (pid, errno uintptr)
//
// clone(2) with CLONE_VM|CLONE_VFORK|CLONE_PIDFD: the child runs payloadMain(m)
// on a stack of its own in the shared memory and never comes back here.
TEXT ·vforkPayload(SB),NOSPLIT,$0-48
	MOVQ	flags+0(FP), DI
	MOVQ	stack+8(FP), SI
	MOVQ	pidfd+24(FP), DX
	MOVQ	m+16(FP), R12
	XORL	R10, R10
	XORL	R8, R8
	MOVL	$56, AX		// SYS_clone
	SYSCALL
	TESTQ	AX, AX
	JEQ	child
	CMPQ	AX, $0xfffffffffffff001
	JCC	failed
	MOVQ	AX, pid+32(FP)
	MOVQ	$0, errno+40(FP)
	RET
failed:
	NEGQ	AX
	MOVQ	$0, pid+32(FP)
	MOVQ	AX, errno+40(FP)
	RET
child:
	// The stack pointer is the given one; payloadMain takes m in the first slot.
	SUBQ	$32, SP
	MOVQ	R12, 0(SP)
	CALL	·payloadMain(SB)
	INT	$3
