package spec

import "time"

// Status is the outcome in one word.
type Status string

// The outcomes.
const (
	StatusRunning Status = "running" // not yet ended; only inspect shows it
	StatusSuccess Status = "success" // the command exited by itself, whatever its code
	StatusError   Status = "error"   // capsule or the request failed
	StatusTimeout Status = "timeout" // the wall clock ended it
	StatusKilled  Status = "killed"  // a signal or a limit ended it
)

// Reason says how the execution ended.
type Reason string

// The reasons.
const (
	ReasonExited         Reason = "exited"
	ReasonSignaled       Reason = "signaled"
	ReasonTimeoutWall    Reason = "timeout_wall"
	ReasonTimeoutCPU     Reason = "timeout_cpu"
	ReasonOOM            Reason = "oom"
	ReasonOutputLimit    Reason = "output_limit"
	ReasonPidsLimit      Reason = "pids_limit"
	ReasonDiskLimit      Reason = "disk_limit"
	ReasonSeccomp        Reason = "seccomp"
	ReasonKilledByCaller Reason = "killed_by_caller"
	ReasonShimLost       Reason = "shim_lost"
	ReasonSetupFailed    Reason = "setup_failed"
	ReasonRefused        Reason = "refused"
)

// Response is one ExecutionResponse. A nil pointer is a null in JSON: not
// known or not measured.
type Response struct {
	ExecutionID string      `json:"execution_id"`
	Status      Status      `json:"status"`
	Termination Termination `json:"termination"`
	// ExitCode is 0..255; Signal is 1..64. Never both; both null when the
	// command never ran.
	ExitCode *int `json:"exit_code"`
	Signal   *int `json:"signal"`
	// Stdout and Stderr are what was kept; nil when the command never ran, or
	// when the history has dropped them, of which Warnings tell. With their
	// encoding "base64" they are base64 because the bytes are not UTF-8.
	Stdout         *string `json:"stdout,omitempty"`
	StdoutEncoding string  `json:"stdout_encoding,omitempty"`
	Stderr         *string `json:"stderr,omitempty"`
	StderrEncoding string  `json:"stderr_encoding,omitempty"`
	Output         *Output `json:"output,omitempty"`
	Metrics        Metrics `json:"metrics"`
	// Timeline is nil when the execution ended before its first point.
	Timeline *Timeline `json:"timeline,omitempty"`
	// Enforcement is what the kernel confirmed. Nil when no sandbox was built.
	Enforcement *Enforcement `json:"enforcement,omitempty"`
	Denials     []Denial     `json:"denials,omitempty"`
	// Syscalls are what an execution with the seccomp profile audit called.
	Syscalls   []SyscallUse `json:"syscalls,omitempty"`
	Timestamps Timestamps   `json:"timestamps"`
	// Warnings name defaults that this host could not enforce, and tell that
	// output is no longer kept.
	Warnings []string `json:"warnings,omitempty"`
	Error    *Error   `json:"error,omitempty"`
	// OutputElided is no part of the document: stdout and stderr are kept, and left
	// out because they are large. Attach without following gives them.
	OutputElided bool `json:"-"`
}

// Termination holds the reason.
type Termination struct {
	Reason Reason `json:"reason"`
}

// Output counts the bytes of both streams.
type Output struct {
	Stdout StreamCount `json:"stdout"`
	Stderr StreamCount `json:"stderr"`
}

// StreamCount counts the bytes of one stream.
type StreamCount struct {
	BytesTotal int64 `json:"bytes_total"`
	BytesKept  int64 `json:"bytes_kept"`
	Truncated  bool  `json:"truncated"`
}

// Metrics are measured, never estimated; null where not measured.
type Metrics struct {
	// WallTimeMS runs from execve to the exit of the command.
	WallTimeMS *float64 `json:"wall_time_ms"`
	// CPUTimeMS is UserTimeMS plus KernelTimeMS of the whole tree, from the cgroup.
	CPUTimeMS      *float64 `json:"cpu_time_ms"`
	UserTimeMS     *float64 `json:"user_time_ms"`
	KernelTimeMS   *float64 `json:"kernel_time_ms"`
	MaxMemoryBytes *int64   `json:"max_memory_bytes"`
	IOBytesRead    *int64   `json:"io_bytes_read"`
	IOBytesWritten *int64   `json:"io_bytes_written"`
	// MaxPids is the peak of processes and threads, our init not counted.
	MaxPids  *int64 `json:"max_pids"`
	OOMKills *int64 `json:"oom_kills"`
	// ThrottledMS is time spent waiting for cpu_quota.
	ThrottledMS *float64 `json:"throttled_ms"`
	// StartupUS is the time from the shim's acceptance of the request to
	// execve, in microseconds; StartupPhases splits it.
	StartupUS     *int64           `json:"startup_us"`
	StartupPhases map[string]int64 `json:"startup_phases_us,omitempty"`
	// Pressure is nil where the kernel does not tell it, and for an execution that
	// ended within PressureAfterMS.
	Pressure *Pressure `json:"pressure,omitempty"`
}

// PressureAfterMS is how long an execution must last for its pressure to be
// read, in milliseconds: what a shorter one waited for is not worth the reading.
const PressureAfterMS = 100

// Pressure is how long tasks waited for a resource, from the kernel's pressure
// stall information (Documentation/accounting/psi.rst), in milliseconds.
type Pressure struct {
	// At least one task waited.
	CPUSomeMS    *float64 `json:"cpu_some_ms"`
	MemorySomeMS *float64 `json:"memory_some_ms"`
	IOSomeMS     *float64 `json:"io_some_ms"`
	// All tasks that could have run waited.
	MemoryFullMS *float64 `json:"memory_full_ms"`
	IOFullMS     *float64 `json:"io_full_ms"`
}

// TimelineMax is how many points a time line has at most. When it is full every
// second point goes, and the interval doubles.
const TimelineMax = 256

// Timeline is the use of resources over time, sampled.
type Timeline struct {
	// IntervalMS is the time between two points, in milliseconds.
	IntervalMS int64 `json:"interval_ms"`
	// Points are 1..TimelineMax, the oldest first.
	Points []Point `json:"points"`
}

// Point is one sample; null where not measured.
type Point struct {
	// AtMS is the time since execve, in milliseconds.
	AtMS int64 `json:"at_ms"`
	// MemoryBytes and Pids are in use at that time, CPUTimeMS was used until then.
	MemoryBytes *int64   `json:"memory_bytes"`
	CPUTimeMS   *float64 `json:"cpu_time_ms"`
	Pids        *int64   `json:"pids"`
}

// State of a wall or limit.
type State string

// The states.
const (
	Enforced State = "enforced" // the kernel confirmed it
	Degraded State = "degraded" // weaker than asked, see warnings
	Absent   State = "absent"   // not there
)

// Enforcement says for each wall and limit what the kernel confirmed.
type Enforcement struct {
	// Walls by name: user_namespace, mount_namespace, pid_namespace, ... rootfs,
	// capabilities, no_new_privs, seccomp, proc_masking, rlimits.
	Walls map[string]State `json:"walls"`
	// Limits by name: memory, pids, cpu_shares, cpu_quota, output, timeout, disk ...
	Limits map[string]State `json:"limits"`
	// CgroupVersion is "v1", "v2", "hybrid" or "none".
	CgroupVersion string `json:"cgroup_version"`
	// PolicyHash identifies the policy that was in force (sha256, hex).
	PolicyHash string `json:"policy_hash"`
}

// Denial is something that was refused inside.
type Denial struct {
	Kind   string `json:"kind"` // syscall, path or network
	Name   string `json:"name"`
	Count  int64  `json:"count"`
	Detail string `json:"detail,omitempty"`
}

// SyscallUse is a system call that the command, or one of its descendants, made
// under the profile audit.
type SyscallUse struct {
	Name  string `json:"name"`
	Count int64  `json:"count"`
	// Arguments are the different values that decided what a shipped profile
	// answers, as "2&0x400040=0x40,3&0xc00=0x0": argument 2 under a mask, and
	// argument 3 under another. Empty: no value decides.
	Arguments []string `json:"arguments,omitempty"`
	// Partial tells that there were more values than are kept.
	Partial bool `json:"partial"`
	// Processes are the names of up to four processes that made it.
	Processes []string `json:"processes,omitempty"`
	// RefusedBy are shipped profiles that would have refused some of the calls.
	RefusedBy []string `json:"refused_by,omitempty"`
}

// Timestamps are UTC with nanoseconds; null where the moment was not reached.
type Timestamps struct {
	Created   time.Time  `json:"created"`
	Started   *time.Time `json:"started"`
	Completed *time.Time `json:"completed"`
}

// Error is a fault as callers see it.
type Error struct {
	Code    string         `json:"code"`
	Message string         `json:"message"`
	Hint    string         `json:"hint,omitempty"`
	Details map[string]any `json:"details,omitempty"`
}
