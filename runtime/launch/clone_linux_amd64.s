#include "textflag.h"

// In the child, calls between Go and assembly load g from thread-local storage,
// which for most threads lies in the Go heap. clone3 therefore gives the child
// a storage of its own, all zero (CLONE_SETTLS); nosplit code never uses g.

// func cloneSandbox(args *cloneArgs, m *machine) (pid, errno uintptr)
//
// clone3(2) onto the stack in args; the child runs sandboxMain(m) there.
TEXT ·cloneSandbox(SB),NOSPLIT,$0-32
	MOVQ	args+0(FP), DI
	MOVL	$88, SI		// sizeof(struct clone_args)
	MOVQ	m+8(FP), R12
	MOVL	$435, AX	// SYS_clone3
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
	SUBQ	$32, SP
	MOVQ	R12, 0(SP)
	CALL	·sandboxMain(SB)
	INT	$3

// func vforkPayload(flags, stack uintptr, m *machine, pidfd *int32, tid *uint32) (pid, errno uintptr)
//
// clone(2) with CLONE_VM|CLONE_PIDFD; the child runs payloadMain(m) on the given
// stack in the shared memory. tid is for CLONE_CHILD_CLEARTID.
TEXT ·vforkPayload(SB),NOSPLIT,$0-56
	MOVQ	flags+0(FP), DI
	MOVQ	stack+8(FP), SI
	MOVQ	pidfd+24(FP), DX
	MOVQ	m+16(FP), R12
	MOVQ	tid+32(FP), R10
	XORL	R8, R8
	MOVL	$56, AX		// SYS_clone
	SYSCALL
	TESTQ	AX, AX
	JEQ	child
	CMPQ	AX, $0xfffffffffffff001
	JCC	failed
	MOVQ	AX, pid+40(FP)
	MOVQ	$0, errno+48(FP)
	RET
failed:
	NEGQ	AX
	MOVQ	$0, pid+40(FP)
	MOVQ	AX, errno+48(FP)
	RET
child:
	SUBQ	$32, SP
	MOVQ	R12, 0(SP)
	CALL	·payloadMain(SB)
	INT	$3
