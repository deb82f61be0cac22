#include "textflag.h"

// func vforkPayload(flags, stack uintptr, m *machine, pidfd *int32) (pid, errno uintptr)
//
// clone(2) with CLONE_VM|CLONE_VFORK|CLONE_PIDFD: the child runs payloadMain(m)
// on a stack of its own in the shared memory and never comes back here.
TEXT ·vforkPayload(SB),NOSPLIT,$32-48
	MOVD	flags+0(FP), R0
	MOVD	stack+8(FP), R1
	MOVD	pidfd+24(FP), R2
	MOVD	m+16(FP), R19
	MOVD	$0, R3
	MOVD	$0, R4
	MOVD	$220, R8	// SYS_clone
	SVC
	CBZ	R0, child
	CMN	$4095, R0
	BCS	failed
	MOVD	R0, pid+32(FP)
	MOVD	ZR, errno+40(FP)
	RET
failed:
	NEG	R0, R0
	MOVD	ZR, pid+32(FP)
	MOVD	R0, errno+40(FP)
	RET
child:
	// The stack pointer is the given one; payloadMain takes m above the link register's slot.
	SUB	$32, RSP
	MOVD	R19, 8(RSP)
	BL	·payloadMain(SB)
	BRK
