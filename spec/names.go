package spec

// The names of walls in Enforcement.Walls and in isolation.allow_degraded.
const (
	WallUserNamespace    = "user_namespace"
	WallMountNamespace   = "mount_namespace"
	WallPIDNamespace     = "pid_namespace"
	WallIPCNamespace     = "ipc_namespace"
	WallUTSNamespace     = "uts_namespace"
	WallCgroupNamespace  = "cgroup_namespace"
	WallNetworkNamespace = "network_namespace"
	WallTimeNamespace    = "time_namespace"
	WallRootfs           = "rootfs"
	WallCapabilities     = "capabilities"
	WallNoNewPrivs       = "no_new_privs"
	WallSeccomp          = "seccomp"
	WallProcMasking      = "proc_masking"
	WallRlimits          = "rlimits"
	WallIDMap            = "idmap"
	WallLandlock         = "landlock"
)

// The names of limits in Enforcement.Limits and in isolation.allow_degraded.
// Rlimits are a wall and a limit under the same name.
const (
	LimitMemory    = "memory"
	LimitPids      = "pids"
	LimitCPUShares = "cpu_shares"
	LimitCPUQuota  = "cpu_quota"
	LimitCPUTime   = "cpu_time"
	LimitOutput    = "output"
	LimitTimeout   = "timeout"
	LimitDisk      = "disk"
	LimitIO        = "io"
	LimitRlimits   = "rlimits"
)

// degradable are the walls and then the limits, each name once.
var degradable = []string{
	WallUserNamespace, WallMountNamespace, WallPIDNamespace, WallIPCNamespace, WallUTSNamespace,
	WallCgroupNamespace, WallNetworkNamespace, WallTimeNamespace, WallRootfs, WallCapabilities,
	WallNoNewPrivs, WallSeccomp, WallProcMasking, WallRlimits, WallIDMap, WallLandlock,
	LimitMemory, LimitPids, LimitCPUShares, LimitCPUQuota, LimitCPUTime, LimitOutput, LimitTimeout,
	LimitDisk, LimitIO,
}

// requirable may stand in isolation.require: the walls that a host or a backend may
// lack, limits, and each rlimit by itself.
var requirable = []string{
	WallLandlock, WallSeccomp,
	LimitMemory, LimitPids, LimitCPUShares, LimitCPUQuota, LimitCPUTime, LimitOutput, LimitTimeout,
	LimitDisk, LimitIO, LimitRlimits,
	"rlimit_as", "rlimit_core", "rlimit_cpu", "rlimit_data", "rlimit_fsize", "rlimit_locks", "rlimit_memlock",
	"rlimit_msgqueue", "rlimit_nice", "rlimit_nofile", "rlimit_nproc", "rlimit_rss", "rlimit_rtprio",
	"rlimit_rttime", "rlimit_sigpending", "rlimit_stack",
}

// walls is the number of names in degradable that are walls.
const walls = 16

// WallNames lists the walls in the order in which documents show them. The
// caller owns the result.
func WallNames() []string { return append([]string(nil), degradable[:walls]...) }

// LimitNames lists the limits in the order in which documents show them. The
// caller owns the result.
func LimitNames() []string { return append(append([]string(nil), degradable[walls:]...), LimitRlimits) }

// The names of the shipped system call filters, for Seccomp.Name.
const (
	SeccompDefault    = "default"
	SeccompStrict     = "strict"
	SeccompNetwork    = "network"
	SeccompUnconfined = "unconfined" // no filter; only where policy allows it
	SeccompAudit      = "audit"      // default, and a record of every call
)

var seccompNames = []string{SeccompDefault, SeccompStrict, SeccompNetwork, SeccompAudit, SeccompUnconfined}

// rlimitNames are the limits of getrlimit(2) as OCI names them, without
// RLIMIT_ and in lower case.
var rlimitNames = []string{
	"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc",
	"rss", "rtprio", "rttime", "sigpending", "stack",
}
