package spec

// Bounds of a request that more than one place needs.
const (
	// MaxDocumentBytes bounds an encoded request; a longer one is E1003.
	MaxDocumentBytes = 64 << 20
	// MaxStdinBytes bounds stdin inside a request. Streaming has no bound.
	MaxStdinBytes = 16 << 20
	// MaxBinds bounds readonly_paths, writable_paths and bind_mounts together.
	MaxBinds = 200
	// MaxPathBytes is PATH_MAX of Linux.
	MaxPathBytes = 4096
)

const pathRule = "absolute and clean: no `..`, `//` or trailing slash"

// requestObject is the request; the objects below it follow.
var requestObject = object{title: "ExecutionRequest", fields: []field{
	{name: "command", at: func(o any) any { return &o.(*Request).Command }, required: true,
		min: 1, max: 1000, maxBytes: 131072,
		doc:     "The program and its arguments. The program is looked up in PATH inside the sandbox unless it contains a slash. No shell is involved.",
		accepts: "the first element is not empty"},
	{name: "environment", at: func(o any) any { return &o.(*Request).Environment },
		max: 1000, maxBytes: 131072, maxKeyBytes: 256, keyRule: variableName,
		doc:     "Variables for the command besides PATH, HOME, LANG and, with a terminal, TERM. Nothing of the caller's own environment is passed on.",
		accepts: "keys match `[A-Za-z_][A-Za-z0-9_]*`"},
	{name: "stdin", at: func(o any) any { return &o.(*Request).Stdin },
		max: MaxStdinBytes, object: &stdinObject,
		doc:     "What the command reads on descriptor 0: a string, or an object with the key `base64` for bytes that are not UTF-8. Null: `/dev/null`.",
		accepts: "at most 16777216 bytes after decoding"},
	{name: "timeout_ms", at: func(o any) any { return &o.(*Request).TimeoutMS }, def: int64(30000), min: 1, max: 86400000,
		doc: "Wall clock from execve to the end, in milliseconds. Then the execution ends with E3001."},
	{name: "grace_ms", at: func(o any) any { return &o.(*Request).GraceMS }, def: int64(2000), max: 60000,
		doc: "Time between SIGTERM and the death of the whole process tree, in milliseconds. 0: the tree dies at once."},
	{name: "labels", at: func(o any) any { return &o.(*Request).Labels },
		max: 64, maxBytes: 1024, maxKeyBytes: 128, keyRule: labelKey, rule: labelValue,
		doc:     "Carried along for `ps`, events and metrics; no effect on the execution.",
		accepts: "keys match `[A-Za-z0-9][A-Za-z0-9._/-]*`; values hold no control characters"},
	{name: "resources", at: func(o any) any { return &o.(*Request).Resources }, object: &resourcesObject,
		doc: "The limits."},
	{name: "isolation", at: func(o any) any { return &o.(*Request).Isolation }, object: &isolationObject,
		doc: "The walls."},
}}

// stdinObject is the form of stdin for bytes that are not UTF-8.
var stdinObject = object{title: "stdin", fields: []field{
	{name: "base64", at: func(o any) any { return o.(*string) }, required: true,
		doc: "The bytes in standard base64 with padding; line breaks are ignored."},
}}

var resourcesObject = object{title: "resources", fields: []field{
	{name: "memory_bytes", at: func(o any) any { return &o.(*Resources).MemoryBytes }, def: int64(256 << 20), min: 1 << 20, max: 1 << 50,
		doc:     "Memory of the whole execution, page cache and tmpfs included. Swap is not available. Over it the kernel kills: E4002.",
		accepts: "at most the memory of the host"},
	{name: "cpu_shares", at: func(o any) any { return &o.(*Resources).CPUShares }, def: int64(1024), min: 2, max: 262144,
		doc: "Relative weight when processors are contended, on the scale of cgroup v1; converted for v2 as the OCI runtimes do."},
	{name: "cpu_quota", at: func(o any) any { return &o.(*Resources).CPUQuota }, min: 0.01, max: 8192,
		doc:     "Ceiling in cores; the execution is throttled to it. Null: none.",
		accepts: "at most the cores of the host"},
	{name: "cpu_time_ms", at: func(o any) any { return &o.(*Resources).CPUTimeMS }, min: 1, max: 31536000000,
		doc: "CPU time of the whole process tree, in milliseconds. Over it the execution is killed: E4005. Null: none."},
	{name: "max_output_bytes", at: func(o any) any { return &o.(*Resources).MaxOutputBytes }, def: int64(1 << 20), max: 1 << 30,
		doc: "What is kept of stdout and of stderr, each. All bytes are counted whatever is kept."},
	{name: "output_policy", at: func(o any) any { return &o.(*Resources).OutputPolicy }, def: string(OutputTruncate),
		enum: []string{string(OutputTruncate), string(OutputTail), string(OutputKill)},
		doc:  "What happens beyond max_output_bytes: `truncate` keeps the first bytes, `tail` keeps the last, `kill` ends the execution with E3006."},
	{name: "max_pids", at: func(o any) any { return &o.(*Resources).MaxPids }, def: int64(100), min: 1, max: 32768,
		doc: "Processes and threads of the execution at one time."},
	{name: "disk_bytes", at: func(o any) any { return &o.(*Resources).DiskBytes }, def: int64(64 << 20), min: 64 << 10, max: 1 << 40,
		doc: "Size of each writable tmpfs (`/workspace`, `/tmp`); inodes are bounded with it. The pages count as memory, so that at launch each is made smaller than memory_bytes, which a warning tells of where disk_bytes was asked for. 0 is refused because to tmpfs it means no bound."},
	{name: "io", at: func(o any) any { return &o.(*Resources).IO }, object: &ioObject,
		doc: "Bounds on the traffic to block devices, on each by itself: the execution waits. A host that cannot hold them refuses: E4001. Null: none."},
	{name: "rlimits", at: func(o any) any { return &o.(*Resources).Rlimits }, max: 16, object: &rlimitObject,
		doc:     "Limits of getrlimit(2) by OCI name without `RLIMIT_`, in lower case; a bare number sets soft and hard. Those not named: `core` 0, `nofile` 1024, `nproc` max_pids + 2, `fsize` disk_bytes + 65536 (so that a full disk is ENOSPC, not SIGXFSZ).",
		accepts: "soft <= hard"},
}}

var ioObject = object{title: "resources.io", fields: []field{
	{name: "read_bytes_per_second", at: func(o any) any { return &o.(*IOLimits).ReadBytesPerSecond }, min: 1, doc: "Bytes read in a second. Null: no bound."},
	{name: "write_bytes_per_second", at: func(o any) any { return &o.(*IOLimits).WriteBytesPerSecond }, min: 1, doc: "Bytes written in a second. Null: no bound."},
	{name: "read_ops_per_second", at: func(o any) any { return &o.(*IOLimits).ReadOpsPerSecond }, min: 1, doc: "Read operations in a second. Null: no bound."},
	{name: "write_ops_per_second", at: func(o any) any { return &o.(*IOLimits).WriteOpsPerSecond }, min: 1, doc: "Write operations in a second. Null: no bound."},
}}

var rlimitObject = object{title: "resources.rlimits.NAME", fields: []field{
	{name: "soft", at: func(o any) any { return &o.(*Rlimit).Soft }, required: true, doc: "The limit that the kernel enforces. 18446744073709551615: none."},
	{name: "hard", at: func(o any) any { return &o.(*Rlimit).Hard }, required: true, doc: "The ceiling up to which the command may raise soft."},
}}

var isolationObject = object{title: "isolation", fields: []field{
	{name: "backend", at: func(o any) any { return &o.(*Isolation).Backend }, def: string(BackendNamespace),
		enum: []string{string(BackendNamespace), string(BackendProcess)},
		doc:  "`namespace` is the full sandbox of Linux. `process` has limits but no walls; a request that demands a wall is then refused."},
	{name: "network", at: func(o any) any { return &o.(*Isolation).Network }, def: false,
		doc: "False: an own, empty network with a loopback interface. True: the network of the host."},
	{name: "readonly_paths", at: func(o any) any { return &o.(*Isolation).ReadonlyPaths }, max: MaxBinds, maxBytes: MaxPathBytes, rule: bindTarget,
		doc: "Host paths that appear at the same place, read-only, with all that is mounted below them.", accepts: pathRule},
	{name: "writable_paths", at: func(o any) any { return &o.(*Isolation).WritablePaths }, max: MaxBinds, maxBytes: MaxPathBytes, rule: bindTarget,
		doc: "Host paths that appear at the same place, writable. Files keep the owner that the caller expects.", accepts: pathRule},
	{name: "bind_mounts", at: func(o any) any { return &o.(*Isolation).BindMounts }, max: MaxBinds, object: &bindObject,
		doc:     "Host paths that appear elsewhere.",
		accepts: "at most 200 in readonly_paths, writable_paths and bind_mounts together, no destination twice"},
	{name: "working_directory", at: func(o any) any { return &o.(*Isolation).WorkingDirectory }, def: "/workspace", maxBytes: MaxPathBytes, rule: workingDirectory,
		doc: "Initial directory inside. It never widens what is mounted.", accepts: pathRule + "; not /proc or below it"},
	{name: "rootfs", at: func(o any) any { return &o.(*Isolation).Rootfs }, maxBytes: MaxPathBytes, rule: rootDirectory,
		doc: "Host directory that becomes the root instead of the host's system directories. Null: those.", accepts: pathRule + "; not /"},
	{name: "user", at: func(o any) any { return &o.(*Isolation).User }, def: "1000:1000", maxBytes: 11, rule: userRule,
		doc:     "`uid[:gid]` inside the sandbox. Without a gid it is the uid. The user has no capabilities, uid 0 included.",
		accepts: "decimal without sign or leading zeros, each 0..65533"},
	{name: "hostname", at: func(o any) any { return &o.(*Isolation).Hostname }, def: "capsule", maxBytes: 64, rule: hostnameRule,
		doc: "Name of the host inside.", accepts: "RFC 1123: 1..64 bytes of letters, digits, hyphens and dots; each part 1..63 bytes, no hyphen at its ends"},
	{name: "seccomp", at: func(o any) any { return &o.(*Isolation).Seccomp }, def: SeccompDefault, enum: seccompNames,
		doc:     "System call filter: a shipped profile, or an OCI `linux.seccomp` object of at most 1 MiB. `audit` is default that records every call. `unconfined` only where policy allows it.",
		accepts: "default, strict, network, audit, unconfined or an object"},
	{name: "allow_degraded", at: func(o any) any { return &o.(*Isolation).AllowDegraded }, max: 64, enum: degradable,
		doc: "Walls and limits that may be missing. Without it, what the request asks for is enforced or the request is refused."},
	{name: "require", at: func(o any) any { return &o.(*Isolation).Require }, max: 64, enum: requirable,
		doc: "Limits that must be enforced although they stand at their default, `landlock`, which old kernels lack, and `seccomp`, which refuses the profile unconfined; `rlimit_NAME` is one of resources.rlimits. What differs from its default must be enforced in any case. Without this key: the limits that the request or its profile names."},
	{name: "init", at: func(o any) any { return &o.(*Isolation).Init }, def: true,
		doc: "Puts a process 1 in front of the command that reaps orphans. False: the command is process 1."},
}}

var bindObject = object{title: "isolation.bind_mounts[]", fields: []field{
	{name: "source", at: func(o any) any { return &o.(*BindMount).Source }, required: true, min: 1, maxBytes: MaxPathBytes, rule: absolutePath,
		doc: "Path on the host. It must exist.", accepts: pathRule},
	{name: "destination", at: func(o any) any { return &o.(*BindMount).Destination }, required: true, min: 1, maxBytes: MaxPathBytes, rule: bindTarget,
		doc: "Path inside.", accepts: pathRule + "; not /, and not /proc, /sys, /dev or below them"},
	{name: "readonly", at: func(o any) any { return &o.(*BindMount).Readonly }, def: true,
		doc: "False: the command may write."},
}}
