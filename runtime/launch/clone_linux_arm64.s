#include "textflag.h"

// See clone_linux_amd64.s about thread-local storage in the child.

// func cloneSandbox(args *cloneArgs, m *machine) (pid, errno uintptr)
//
// clone3(2) onto the stack in args; the child runs sandboxMain(m) there.
TEXT ·cloneSandbox(SB),NOSPLIT,$32-32
	MOVD	args+0(FP), R0
	MOVD	$88, R1		// sizeof(struct clone_args)
	MOVD	m+8(FP), R19
	MOVD	$435, R8	// SYS_clone3
	SVC
	CBZ	R0, child
	CMN	$4095, R0
	BCS	failed
	MOVD	R0, pid+16(FP)
	MOVD	ZR, errno+24(FP)
	RET
failed:
	NEG	R0, R0
	MOVD	ZR, pid+16(FP)
	MOVD	R0, errno+24(FP)
	RET
child:
	SUB	$32, RSP
	MOVD	R19, 8(RSP)	// above the slot of the link register
	BL	·sandboxMain(SB)
	BRK

// func vforkPayload(flags, stack uintptr, m *machine, pidfd *int32, tid *uint32) (pid, errno uintptr)
//
// clone(2) with CLONE_VM|CLONE_PIDFD; the child runs payloadMain(m) on the given
// stack in the shared memory. tid is for CLONE_CHILD_CLEARTID.
TEXT ·vforkPayload(SB),NOSPLIT,$32-56
	MOVD	flags+0(FP), R0
	MOVD	stack+8(FP), R1
	MOVD	pidfd+24(FP), R2
	MOVD	m+16(FP), R19
	MOVD	$0, R3
	MOVD	tid+32(FP), R4
	MOVD	$220, R8	// SYS_clone
	SVC
	CBZ	R0, child
	CMN	$4095, R0
	BCS	failed
	MOVD	R0, pid+40(FP)
	MOVD	ZR, errno+48(FP)
	RET
failed:
	NEG	R0, R0
	MOVD	ZR, pid+40(FP)
	MOVD	R0, errno+48(FP)
	RET
child:
	SUB	$32, RSP
	MOVD	R19, 8(RSP)	// above the slot of the link register
	BL	·payloadMain(SB)
	BRK
