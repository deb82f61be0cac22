package plan

// Constants of the Linux ABI that are the same on every architecture, from the
// kernel's include/uapi. They stand here because a plan is compiled on any
// operating system. O_DIRECTORY and O_NOFOLLOW differ by architecture, so no
// step uses them: openat2's resolve flags and O_EXCL do their work.
const (
	atFDCWD     = -100
	atEmptyPath = 0x1000
	atRecursive = 0x8000

	openTreeClone = 0x1

	oWronly  = 0x1
	oRdwr    = 0x2
	oNoctty  = 0x100
	oCreat   = 0x40
	oExcl    = 0x80
	oCloexec = 0x80000
	oPath    = 0x200000

	moveMountFEmptyPath = 0x04
	moveMountTEmptyPath = 0x40

	mountAttrRdonly      = 0x01
	mountAttrNosuid      = 0x02
	mountAttrNodev       = 0x04
	mountAttrNoexec      = 0x08
	mountAttrAtimeMask   = 0x70
	mountAttrNoatime     = 0x10
	mountAttrStrictatime = 0x20
	mountAttrNodiratime  = 0x80
	mountAttrIDMap       = 0x100000
	mountAttrNosymfollow = 0x200000

	msRdonly      = 0x1
	msNosuid      = 0x2
	msNodev       = 0x4
	msNoexec      = 0x8
	msNoatime     = 0x400
	msRelatime    = 0x200000
	msStrictatime = 0x1000000
	msPrivate     = 1 << 18
	msSlave       = 1 << 19
	msShared      = 1 << 20
	msUnbindable  = 1 << 17
	msRec         = 0x4000
	msSynchronous = 0x10
	msMandlock    = 0x40
	msDirsync     = 0x80
	msNodiratime  = 0x800
	msSilent      = 0x8000
	msPosixACL    = 1 << 16
	msIVersion    = 1 << 23
	msLazytime    = 1 << 25

	mntDetach = 2

	atSymlinkNofollow = 0x100

	fsconfigSetFlag   = 0
	fsconfigSetString = 1
	fsconfigCmdCreate = 6
	fsmountCloexec    = 1
	fsopenCloexec     = 1

	resolveNoXdev       = 0x01
	resolveNoMagiclinks = 0x02
	resolveBeneath      = 0x08
	resolveNoSymlinks   = 0x04
	resolveInRoot       = 0x10

	prSetDumpable     = 4
	prCapbsetDrop     = 24
	prSetSecurebits   = 28
	prSetPdeathsig    = 1
	prSetKeepcaps     = 8
	prSetNoNewPrivs   = 38
	prCapAmbient      = 47
	prCapAmbientRaise = 2
	prCapAmbientClear = 4
	securebitsLocked  = 0xeb // NOROOT and NO_CAP_AMBIENT_RAISE on, NO_SETUID_FIXUP and KEEP_CAPS off, all four locked
	capVersion3       = 0x20080522
	seccompSetFilter  = 1
	keyctlJoinSession = 1
	closeRangeCloexec = 4
	sigKill           = 9
	afInet            = 2
	sockDgramCloexec  = 2 | 0x80000
	siocSIFFlags      = 0x8914
	tiocSPTLock       = 0x40045431
	tiocGPTPeer       = 0x5441
	tiocSCTTY         = 0x540e
	fcntlSetFD        = 2
	fcntlDupFD        = 1030 // F_DUPFD_CLOEXEC
	iffUpRunning      = 0x1 | 0x40
	capLastDefault    = 40 // CAP_CHECKPOINT_RESTORE, Linux 5.9

	// CloneNew* are the namespace flags of clone(2) and unshare(2).
	CloneNewTime   = 0x80
	CloneNewNS     = 0x20000
	CloneNewCgroup = 0x2000000
	CloneNewUTS    = 0x4000000
	CloneNewIPC    = 0x8000000
	CloneNewUser   = 0x10000000
	CloneNewPID    = 0x20000000
	CloneNewNet    = 0x40000000
)
