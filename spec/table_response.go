package spec

// responseObject is the response; the objects below it follow.
var responseObject = object{title: "ExecutionResponse", fields: []field{
	{name: "execution_id", at: func(o any) any { return &o.(*Response).ExecutionID }, required: true,
		doc: "UUID of the execution. Never given out twice."},
	{name: "status", at: func(o any) any { return &o.(*Response).Status }, required: true,
		enum: []string{string(StatusRunning), string(StatusSuccess), string(StatusError), string(StatusTimeout), string(StatusKilled)},
		doc:  "`success`: the command exited by itself, whatever its code. `timeout`: the wall clock ended it. `killed`: a signal or a limit ended it. `error`: capsule or the request failed. `running`: it has not ended; only `inspect` shows this."},
	{name: "termination", at: func(o any) any { return &o.(*Response).Termination }, required: true, object: &terminationObject,
		doc: "How it ended."},
	{name: "exit_code", at: func(o any) any { return &o.(*Response).ExitCode }, max: 255,
		doc: "Exit code of the command. Null when a signal ended it or it never ran."},
	{name: "signal", at: func(o any) any { return &o.(*Response).Signal }, min: 1, max: 64,
		doc: "Signal that ended the command. Null when it exited or never ran."},
	{name: "stdout", at: func(o any) any { return &o.(*Response).Stdout }, omit: true,
		doc: "What was kept of standard output. Present whenever the command ran, until it is no longer kept, of which a warning tells."},
	{name: "stdout_encoding", at: func(o any) any { return &o.(*Response).StdoutEncoding }, omit: true, enum: []string{encodingBase64},
		doc: "Present when stdout is base64, because the bytes are not UTF-8."},
	{name: "stderr", at: func(o any) any { return &o.(*Response).Stderr }, omit: true,
		doc: "What was kept of standard error. Present whenever the command ran, until it is no longer kept, of which a warning tells."},
	{name: "stderr_encoding", at: func(o any) any { return &o.(*Response).StderrEncoding }, omit: true, enum: []string{encodingBase64},
		doc: "Present when stderr is base64, because the bytes are not UTF-8."},
	{name: "output", at: func(o any) any { return &o.(*Response).Output }, omit: true, object: &outputObject,
		doc: "Bytes of both streams. Present whenever the command ran."},
	{name: "metrics", at: func(o any) any { return &o.(*Response).Metrics }, required: true, object: &metricsObject,
		doc: "What was measured; null where nothing was."},
	{name: "timeline", at: func(o any) any { return &o.(*Response).Timeline }, omit: true, object: &timelineObject,
		doc: "Use of resources over time. Present when the command ran until the first point, 0.1 s after its start unless `monitoring.timeline_ms` says otherwise; later among many executions."},
	{name: "enforcement", at: func(o any) any { return &o.(*Response).Enforcement }, omit: true, object: &enforcementObject,
		doc: "What the kernel confirmed; in a verdict on a pod the limits are those of its configuration. Present when a sandbox was built."},
	{name: "denials", at: func(o any) any { return &o.(*Response).Denials }, omit: true, object: &denialObject,
		doc: "What was refused inside."},
	{name: "syscalls", at: func(o any) any { return &o.(*Response).Syscalls }, omit: true, object: &syscallObject,
		doc: "What was called. Only with the seccomp profile `audit`."},
	{name: "timestamps", at: func(o any) any { return &o.(*Response).Timestamps }, required: true, object: &timestampsObject,
		doc: "RFC 3339, UTC, nanoseconds."},
	{name: "warnings", at: func(o any) any { return &o.(*Response).Warnings }, omit: true,
		doc: "Defaults that this host could not enforce, and what is no longer kept."},
	{name: "error", at: func(o any) any { return &o.(*Response).Error }, omit: true, object: &errorObject,
		doc: "Present when status is not success."},
}}

var terminationObject = object{title: "termination", fields: []field{
	{name: "reason", at: func(o any) any { return &o.(*Termination).Reason },
		enum: []string{string(ReasonExited), string(ReasonSignaled), string(ReasonTimeoutWall), string(ReasonTimeoutCPU),
			string(ReasonOOM), string(ReasonOutputLimit), string(ReasonPidsLimit), string(ReasonDiskLimit), string(ReasonSeccomp),
			string(ReasonKilledByCaller), string(ReasonShimLost), string(ReasonSetupFailed), string(ReasonRefused)},
		orNull: true, doc: "Null while the execution runs."},
}}

var outputObject = object{title: "output", fields: []field{
	{name: "stdout", at: func(o any) any { return &o.(*Output).Stdout }, object: &streamObject, required: true, doc: "Standard output."},
	{name: "stderr", at: func(o any) any { return &o.(*Output).Stderr }, object: &streamObject, required: true, doc: "Standard error."},
}}

var streamObject = object{title: "output.STREAM", fields: []field{
	{name: "bytes_total", at: func(o any) any { return &o.(*StreamCount).BytesTotal }, required: true, doc: "Bytes that the command wrote."},
	{name: "bytes_kept", at: func(o any) any { return &o.(*StreamCount).BytesKept }, required: true, doc: "Bytes that were kept, before base64, also when stdout and stderr no longer are."},
	{name: "truncated", at: func(o any) any { return &o.(*StreamCount).Truncated }, required: true, doc: "True when some were not kept."},
}}

var metricsObject = object{title: "metrics", fields: []field{
	{name: "wall_time_ms", at: func(o any) any { return &o.(*Metrics).WallTimeMS }, doc: "From execve to the exit of the command, in milliseconds."},
	{name: "cpu_time_ms", at: func(o any) any { return &o.(*Metrics).CPUTimeMS }, doc: "CPU time of the whole tree, in milliseconds: user_time_ms plus kernel_time_ms."},
	{name: "user_time_ms", at: func(o any) any { return &o.(*Metrics).UserTimeMS }, doc: "CPU time in user mode, in milliseconds."},
	{name: "kernel_time_ms", at: func(o any) any { return &o.(*Metrics).KernelTimeMS }, doc: "CPU time in the kernel, in milliseconds."},
	{name: "max_memory_bytes", at: func(o any) any { return &o.(*Metrics).MaxMemoryBytes }, doc: "Peak memory of the control group, page cache included."},
	{name: "io_bytes_read", at: func(o any) any { return &o.(*Metrics).IOBytesRead }, doc: "Bytes read from block devices."},
	{name: "io_bytes_written", at: func(o any) any { return &o.(*Metrics).IOBytesWritten }, doc: "Bytes written to block devices."},
	{name: "max_pids", at: func(o any) any { return &o.(*Metrics).MaxPids }, doc: "Peak of processes and threads, capsule's own init not counted."},
	{name: "oom_kills", at: func(o any) any { return &o.(*Metrics).OOMKills }, doc: "Processes that the kernel killed for want of memory."},
	{name: "throttled_ms", at: func(o any) any { return &o.(*Metrics).ThrottledMS }, doc: "Time spent waiting for cpu_quota, in milliseconds."},
	{name: "startup_us", at: func(o any) any { return &o.(*Metrics).StartupUS }, doc: "From the acceptance of the request by the shim to execve, in microseconds."},
	{name: "startup_phases_us", at: func(o any) any { return &o.(*Metrics).StartupPhases }, omit: true, doc: "Parts of startup_us by name, in microseconds."},
	{name: "pressure", at: func(o any) any { return &o.(*Metrics).Pressure }, omit: true, object: &pressureObject,
		doc: "How long tasks waited for resources. Present when the execution lasted 100 ms and there is a cgroup v2 tree, without controllers too."},
}}

var pressureObject = object{title: "metrics.pressure", fields: []field{
	{name: "cpu_some_ms", at: func(o any) any { return &o.(*Pressure).CPUSomeMS }, doc: "Time in which at least one task waited for a processor, in milliseconds; cpu_quota counts."},
	{name: "memory_some_ms", at: func(o any) any { return &o.(*Pressure).MemorySomeMS }, doc: "Time in which at least one task waited for memory, in milliseconds."},
	{name: "io_some_ms", at: func(o any) any { return &o.(*Pressure).IOSomeMS }, doc: "Time in which at least one task waited for a disk, in milliseconds."},
	{name: "memory_full_ms", at: func(o any) any { return &o.(*Pressure).MemoryFullMS }, doc: "Time in which all tasks waited for memory, in milliseconds."},
	{name: "io_full_ms", at: func(o any) any { return &o.(*Pressure).IOFullMS }, doc: "Time in which all tasks waited for a disk, in milliseconds."},
}}

var timelineObject = object{title: "timeline", fields: []field{
	{name: "interval_ms", at: func(o any) any { return &o.(*Timeline).IntervalMS }, required: true, min: 1, doc: "Time between two points, in milliseconds."},
	{name: "points", at: func(o any) any { return &o.(*Timeline).Points }, required: true, max: TimelineMax, object: &pointObject,
		doc: "The oldest first. When there are 256 every second one goes, and the interval doubles."},
}}

var pointObject = object{title: "timeline.points[]", fields: []field{
	{name: "at_ms", at: func(o any) any { return &o.(*Point).AtMS }, required: true, doc: "Time since execve, in milliseconds."},
	{name: "memory_bytes", at: func(o any) any { return &o.(*Point).MemoryBytes }, doc: "Memory in use, page cache included."},
	{name: "cpu_time_ms", at: func(o any) any { return &o.(*Point).CPUTimeMS }, doc: "CPU time used so far, in milliseconds."},
	{name: "pids", at: func(o any) any { return &o.(*Point).Pids }, doc: "Processes and threads, capsule's own init not counted."},
}}

var enforcementObject = object{title: "enforcement", fields: []field{
	{name: "walls", at: func(o any) any { return &o.(*Enforcement).Walls }, required: true, enum: stateNames,
		doc: "State of each wall by name."},
	{name: "limits", at: func(o any) any { return &o.(*Enforcement).Limits }, required: true, enum: stateNames,
		doc: "State of each limit by name."},
	{name: "cgroup_version", at: func(o any) any { return &o.(*Enforcement).CgroupVersion }, required: true, enum: []string{"v1", "v2", "hybrid", "none"},
		doc: "Control groups of the host."},
	{name: "policy_hash", at: func(o any) any { return &o.(*Enforcement).PolicyHash }, required: true,
		doc: "SHA-256 of the policy that was in force, in hexadecimal."},
}}

var stateNames = []string{string(Enforced), string(Degraded), string(Absent)}

var denialObject = object{title: "denials[]", fields: []field{
	{name: "kind", at: func(o any) any { return &o.(*Denial).Kind }, required: true, enum: []string{"syscall", "path", "network"}, doc: "What was refused."},
	{name: "name", at: func(o any) any { return &o.(*Denial).Name }, required: true, doc: "Name of the system call, the path or the address."},
	{name: "count", at: func(o any) any { return &o.(*Denial).Count }, required: true, min: 1, doc: "How often."},
	{name: "detail", at: func(o any) any { return &o.(*Denial).Detail }, omit: true, doc: "More about it."},
}}

var syscallObject = object{title: "syscalls[]", fields: []field{
	{name: "name", at: func(o any) any { return &o.(*SyscallUse).Name }, required: true, doc: "Name of the system call."},
	{name: "count", at: func(o any) any { return &o.(*SyscallUse).Count }, required: true, doc: "How often it was seen. 0 for what starts and ends the command and is not watched."},
	{name: "arguments", at: func(o any) any { return &o.(*SyscallUse).Arguments }, omit: true,
		doc: "The different values that decide what a shipped profile answers: `2&0x400040=0x40,3&0xc00=0x0` is argument 2 under a mask, and argument 3 under another."},
	{name: "partial", at: func(o any) any { return &o.(*SyscallUse).Partial }, required: true, doc: "There were more different values than are kept."},
	{name: "processes", at: func(o any) any { return &o.(*SyscallUse).Processes }, omit: true, doc: "Names of up to four processes that made it."},
	{name: "refused_by", at: func(o any) any { return &o.(*SyscallUse).RefusedBy }, omit: true, doc: "Shipped profiles that would have refused some of the calls."},
}}

var timestampsObject = object{title: "timestamps", fields: []field{
	{name: "created", at: func(o any) any { return &o.(*Timestamps).Created }, required: true, doc: "The request arrived."},
	{name: "started", at: func(o any) any { return &o.(*Timestamps).Started }, doc: "The command was executed. Null: never."},
	{name: "completed", at: func(o any) any { return &o.(*Timestamps).Completed }, doc: "The command ended. Null: not yet, or it never ran."},
}}

var errorObject = object{title: "error", fields: []field{
	{name: "code", at: func(o any) any { return &o.(*Error).Code }, required: true, doc: "One of the codes of the [table of faults](errors.md)."},
	{name: "message", at: func(o any) any { return &o.(*Error).Message }, required: true, doc: "What failed, for people; it may change."},
	{name: "hint", at: func(o any) any { return &o.(*Error).Hint }, omit: true, doc: "What to do about it."},
	{name: "details", at: func(o any) any { return &o.(*Error).Details }, omit: true,
		doc: "Facts for programs. For a refused request `problems` lists every fault as `{code, pointer, message, hint}`."},
}}
