package spec

import "encoding/json"

// Request is one ExecutionRequest after decoding: every default is filled in.
type Request struct {
	// Command is the program and its arguments. 1..1000 elements, each
	// 0..131072 bytes without NUL, the first not empty.
	Command []string `json:"command"`
	// Environment is given to the command besides PATH, HOME and LANG. At most
	// 1000 entries; keys [A-Za-z_][A-Za-z0-9_]* up to 256 bytes, values up to
	// 131072 bytes without NUL.
	Environment map[string]string `json:"environment"`
	// Stdin is what the command reads on descriptor 0. Up to 16 MiB. Nil: /dev/null.
	Stdin *Bytes `json:"stdin"`
	// TimeoutMS is the wall clock from execve to the end, in milliseconds.
	// 1..86400000, default 30000.
	TimeoutMS int64 `json:"timeout_ms"`
	// GraceMS is the time between SIGTERM and the death of the whole tree after
	// a timeout, in milliseconds. 0..60000, default 2000.
	GraceMS int64 `json:"grace_ms"`
	// Labels are carried along for listing, events and metrics. At most 64.
	Labels map[string]string `json:"labels"`
	// Resources are the limits.
	Resources Resources `json:"resources"`
	// Isolation are the walls.
	Isolation Isolation `json:"isolation"`
}

// Resources are the limits of an execution.
type Resources struct {
	// MemoryBytes bounds memory, page cache and tmpfs included, swap excluded.
	// 1 MiB..host memory, default 256 MiB.
	MemoryBytes int64 `json:"memory_bytes"`
	// CPUShares is the relative weight on the cgroup v1 scale. 2..262144, default 1024.
	CPUShares int64 `json:"cpu_shares"`
	// CPUQuota is the ceiling in cores. 0.01..host cores. Nil: none.
	CPUQuota *float64 `json:"cpu_quota"`
	// CPUTimeMS bounds the total CPU time of the tree, in milliseconds. Nil: none.
	CPUTimeMS *int64 `json:"cpu_time_ms"`
	// MaxOutputBytes bounds what is kept of each output stream.
	// 0..1073741824, default 1 MiB.
	MaxOutputBytes int64 `json:"max_output_bytes"`
	// OutputPolicy says what happens beyond MaxOutputBytes. Default truncate.
	OutputPolicy OutputPolicy `json:"output_policy"`
	// MaxPids bounds processes and threads. 1..32768, default 100.
	MaxPids int64 `json:"max_pids"`
	// DiskBytes is the size of each writable tmpfs. Default 64 MiB.
	DiskBytes int64 `json:"disk_bytes"`
	// IO bounds the traffic to block devices. Nil, and nothing in it: none.
	IO *IOLimits `json:"io"`
	// Rlimits are resource limits by OCI name without RLIMIT_, in lower case.
	// Default: core 0, nofile 1024, nproc from MaxPids, fsize from DiskBytes.
	Rlimits map[string]Rlimit `json:"rlimits"`
}

// OutputPolicy says what happens to output beyond the limit.
type OutputPolicy string

// The output policies.
const (
	OutputTruncate OutputPolicy = "truncate" // keep the first bytes, count the rest
	OutputTail     OutputPolicy = "tail"     // keep the last bytes, count the rest
	OutputKill     OutputPolicy = "kill"     // end the execution with E3006
)

// IOLimits bound the traffic to each block device, per second and greater than
// zero. Nil: no bound.
type IOLimits struct {
	ReadBytesPerSecond  *int64 `json:"read_bytes_per_second"`
	WriteBytesPerSecond *int64 `json:"write_bytes_per_second"`
	ReadOpsPerSecond    *int64 `json:"read_ops_per_second"`
	WriteOpsPerSecond   *int64 `json:"write_ops_per_second"`
}

// Bounds tells whether anything is bounded. It may be called on nil.
func (l *IOLimits) Bounds() bool {
	return l != nil && (l.ReadBytesPerSecond != nil || l.WriteBytesPerSecond != nil || l.ReadOpsPerSecond != nil || l.WriteOpsPerSecond != nil)
}

// Rlimit is one resource limit. In JSON a bare number sets both.
type Rlimit struct {
	Soft uint64 `json:"soft"`
	Hard uint64 `json:"hard"`
}

// Backend names an implementation of the sandbox.
type Backend string

// The backends.
const (
	BackendNamespace Backend = "namespace"
	BackendProcess   Backend = "process"
)

// Isolation are the walls of an execution.
type Isolation struct {
	// Backend is the implementation. Default namespace.
	Backend Backend `json:"backend"`
	// Network false gives an empty network with a loopback interface only; true the host's.
	Network bool `json:"network"`
	// ReadonlyPaths are host paths, shown at the same place, read-only and recursive.
	ReadonlyPaths []string `json:"readonly_paths"`
	// WritablePaths are host paths, shown at the same place, writable.
	WritablePaths []string `json:"writable_paths"`
	// BindMounts show host paths elsewhere. At most 200 binds in all three lists.
	BindMounts []BindMount `json:"bind_mounts"`
	// WorkingDirectory is the initial directory. It never widens what is mounted.
	// Default /workspace.
	WorkingDirectory string `json:"working_directory"`
	// Rootfs is a host directory used as root instead of the host's system
	// directories. Nil: those.
	Rootfs *string `json:"rootfs"`
	// User is "uid[:gid]" inside. Default 1000:1000.
	User string `json:"user"`
	// Hostname is the name inside. 1..64 bytes. Default capsule.
	Hostname string `json:"hostname"`
	// Seccomp is a profile name or an OCI linux.seccomp object. Default "default".
	Seccomp Seccomp `json:"seccomp"`
	// AllowDegraded lists walls and limits that may be missing.
	AllowDegraded []string `json:"allow_degraded"`
	// Require lists limits that must be enforced although they stand at their
	// default; one that differs from it must be in any case. DecodeOver puts in
	// what the document names, unless it has this key itself; see Ask.
	Require []string `json:"require"`
	// Init puts a reaping process 1 in front of the command. Default true.
	Init bool `json:"init"`
}

// BindMount shows the host path Source at Destination.
type BindMount struct {
	Source      string `json:"source"`
	Destination string `json:"destination"`
	// Readonly defaults to true.
	Readonly bool `json:"readonly"`
}

// Seccomp selects the system call filter: exactly one of the two is set.
type Seccomp struct {
	// Name is default, strict, network or unconfined.
	Name string
	// Custom is an OCI linux.seccomp object, checked when it is compiled.
	Custom json.RawMessage
}

// Bytes is a byte string. In JSON: a string when it is UTF-8, otherwise {"base64": "..."}.
type Bytes []byte
