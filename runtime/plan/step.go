package plan

// Op names a system call. The launcher maps it to the number of its architecture.
type Op uint8

// The system calls that a plan may use. Nothing else can be expressed.
const (
	OpInvalid Op = iota
	OpRead
	OpWrite
	OpClose
	OpChdir
	OpFchdir
	OpOpenat
	OpOpenat2
	OpMkdirat
	OpSymlinkat
	OpFchmod
	OpOpenTree
	OpMoveMount
	OpMountSetattr
	OpFsopen
	OpFsconfig
	OpFsmount
	OpMount
	OpUmount2
	OpPivotRoot
	OpUnshare
	OpSethostname
	OpSetdomainname
	OpSetresuid
	OpSetresgid
	OpSetgroups
	OpSetsid
	OpPrctl
	OpCapset
	OpPrlimit
	OpDup3
	OpCloseRange
	OpSeccomp
	OpSocket
	OpIoctl
	OpFaccessat
	OpExecve
	OpUmask
	OpClockGettime
	OpKeyctl
	OpLandlockCreateRuleset
	OpLandlockAddRule
	OpLandlockRestrictSelf
	OpSetns
	OpMknodat
	OpFchownat
	OpAccept4
	OpFcntl
	OpPersonality
	OpSchedSetattr
	OpIoprioSet
	OpSchedSetaffinity
	OpSetMempolicy
	opCount
)

// OpCount is the number of operations, for tables indexed by Op.
const OpCount = int(opCount)

var opNames = [OpCount]string{
	"invalid", "read", "write", "close", "chdir", "fchdir", "openat", "openat2", "mkdirat", "symlinkat", "fchmod",
	"open_tree", "move_mount", "mount_setattr", "fsopen", "fsconfig", "fsmount", "mount", "umount2", "pivot_root",
	"unshare", "sethostname", "setdomainname", "setresuid", "setresgid", "setgroups", "setsid", "prctl", "capset",
	"prlimit64", "dup3", "close_range", "seccomp", "socket", "ioctl", "faccessat", "execve", "umask", "clock_gettime", "keyctl",
	"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "setns", "mknodat", "fchownat", "accept4", "fcntl",
	"personality", "sched_setattr", "ioprio_set", "sched_setaffinity", "set_mempolicy",
}

// String is the kernel's name of the system call.
func (o Op) String() string {
	if int(o) < OpCount {
		return opNames[o]
	}
	return opNames[OpInvalid]
}

// Reg is a slot for a descriptor: donated by the launcher before the clone, or
// the result of an earlier step. Values survive from one phase to the next.
type Reg uint16

// The registers with a fixed meaning.
const (
	RegNone   Reg = iota
	RegSync       // read end; one byte arrives when the id maps are written
	RegStdin      // becomes descriptor 0 of the payload
	RegStdout     // becomes 1
	RegStderr     // becomes 2
	RegRoot       // root of the new tree
	RegTarget     // mount target at hand
	RegTree       // detached mount at hand
	RegFS         // file system context at hand
	RegFile       // file or socket at hand
	// Not descriptors, but the bounds of those that are closed around the status
	// socket and what process 1 keeps, which may be one and the same.
	RegBelow        // the number below the lower of the two
	RegBetweenFirst // the number above the lower
	RegBetweenLast  // the number below the higher
	RegAbove        // the number above the higher
	RegListener     // of the filter's notifications
	RegRuleset      // of Landlock
	RegGate         // listening socket at which a container waits for its start
	RegMaster       // of a container's terminal
	RegSlave        // the other end of it
	RegMountNS      // mount namespace to enter
	RegUserNS       // user namespace to enter
	RegTimeNS       // time namespace to enter
	RegCgroupNS     // cgroup namespace to enter
	RegNetNS        // network namespace to enter
	RegIPCNS        // IPC namespace to enter
	RegUTSNS        // UTS namespace to enter
	RegPIDNS        // pid namespace for the process that is made next
	RegProcFS       // file system context of a procfs of that namespace, donated
	// First of MaxRights pairs: the rights of a rule of Landlock, which are no
	// descriptor and stand there from the beginning, and its descriptor.
	RegRule0
)

// Bounds of the register file.
const (
	MaxTasks    = 12
	MaxRights   = 20                     // different rights; the options of mounts make no more
	RegTasks0   = RegRule0 + 2*MaxRights // first of MaxTasks cgroup v1 tasks files, donated
	RegSource0  = RegTasks0 + MaxTasks   // first of the detached source trees
	MaxSources  = 512 - int(RegSource0)  // the walker masks register numbers with 511
	RegCount    = int(RegSource0) + MaxSources
	MaxSteps    = 8192
	MaxDataSize = 64 << 20
)

// ArgKind says how an argument is passed to the kernel.
type ArgKind uint8

// The kinds.
const (
	ArgImm     ArgKind = iota // N as it is
	ArgReg                    // the value of register N
	ArgString                 // pointer to S with a NUL behind it
	ArgBytes                  // pointer to the bytes of S
	ArgVector                 // pointer to a NULL-terminated array of pointers to Vec
	ArgProgram                // pointer to a struct sock_fprog over the bytes of S
	ArgClock                  // pointer to the launch's timespec
	ArgRegs                   // pointer to register N, of 8 bytes, behind which the next one lies
)

// Arg is one argument of a step.
type Arg struct {
	Kind ArgKind
	N    int64
	S    string
	Vec  []string
	// Note is shown by explain in place of bare bytes or numbers.
	Note string
}

// Mode says what the walker does with the result of a step.
type Mode uint8

// The modes.
const (
	Must   Mode = iota // an error ends the launch
	Ignore             // an error is passed over (close, and marks that are best effort by nature)
	Note               // success is remembered: the command exists
	Try                // execve: ENOENT, ENOTDIR and EACCES go on with the next candidate
	Prefer             // success skips the next steps, which are what is done instead in failure
	Probe              // ENOENT and ENOTDIR skip the next steps, which are about what was looked for
)

// Step is one system call of a plan.
type Step struct {
	Op     Op
	Args   []Arg
	Result Reg  // where a descriptor result goes; RegNone: nowhere
	Mode   Mode //
	Expect int64
	// Skip is how many steps Prefer and Probe pass over. 0: one.
	Skip uint8
	// Field is the OCI field that the step comes from, dotted, for faults and explain.
	Field string
	// Path is what the step is about, as the sandbox or the host names it.
	Path string
}

func imm(n int64) Arg                   { return Arg{Kind: ArgImm, N: n} }
func flag(n int64, note string) Arg     { return Arg{Kind: ArgImm, N: n, Note: note} }
func reg(r Reg) Arg                     { return Arg{Kind: ArgReg, N: int64(r)} }
func str(s string) Arg                  { return Arg{Kind: ArgString, S: s} }
func raw(b []byte, note string) Arg     { return Arg{Kind: ArgBytes, S: string(b), Note: note} }
func vector(v []string) Arg             { return Arg{Kind: ArgVector, Vec: v} }
func program(b []byte, note string) Arg { return Arg{Kind: ArgProgram, S: string(b), Note: note} }
