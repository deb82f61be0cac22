package main

import (
	"strconv"
	"strings"

	"github.com/capsule-run/capsule/spec/fault"
)

// The headings of the help text, in order.
const (
	groupExecution = "Execution"
	groupLimits    = "Limits"
	groupFiles     = "Files"
	groupIsolation = "Isolation"
	groupOutput    = "Output"
)

// options is the one table of the run verb's flags. It is read-only and holds
// only constants and functions, so the linker lays it out and no code runs at start.
var options = [...]option{
	{name: "timeout", short: 't', value: "DURATION", group: groupExecution, pointer: "/timeout_ms", apply: applyTimeout,
		usage: "wall clock limit: milliseconds, or 5s, 2m (default 30s)"},
	{name: "grace", value: "DURATION", group: groupExecution, pointer: "/grace_ms", apply: applyGrace,
		usage: "time between SIGTERM and SIGKILL after a timeout (default 2s)"},
	{name: "env", short: 'e', value: "KEY[=VALUE]", group: groupExecution, pointer: "/environment", apply: applyEnv,
		usage: "set a variable; a bare KEY copies it from here (repeatable)"},
	{name: "env-file", value: "FILE", group: groupExecution, pointer: "/environment", apply: applyEnvFile,
		usage: "read variables from a file, one KEY[=VALUE] a line (repeatable)"},
	{name: "workdir", short: 'w', value: "PATH", group: groupExecution, pointer: "/isolation/working_directory", apply: applyWorkdir,
		usage: "working directory inside the sandbox (default /workspace)"},
	{name: "stdin", short: 'i', group: groupExecution, mode: func(i *invocation, v string) error { return parseSwitch(&i.stdin, v) },
		usage: "pass standard input on (default: the command reads /dev/null)"},
	{name: "file", short: 'f', value: "FILE", group: groupExecution, mode: modeFile,
		usage: "read the request from a .json or .toml file, or JSON from - for stdin"},
	{name: "lang", value: "LANGUAGE", group: groupExecution, mode: modeLang,
		usage: "run a script, of a file or of stdin: python, node or bash"},
	{name: "profile", short: 'p', value: "NAME", group: groupExecution, mode: func(i *invocation, v string) error { i.profile = v; return nil },
		usage: "start from a profile, for example ai-agent or high-security (default $CAPSULE_PROFILE)"},
	{name: "config", short: 'c', value: "FILE", group: groupExecution, mode: modeConfig,
		usage: "configuration to use (default $CAPSULE_CONFIG, else see config show)"},
	{name: "create-config", value: "FILE", group: groupExecution, mode: modeCreateConfig,
		usage: "write a configuration with every default to a new file, and run nothing"},
	{name: "label", value: "KEY=VALUE", group: groupExecution, pointer: "/labels", apply: applyLabel,
		usage: "attach a label (repeatable)"},
	{name: "execution-id", value: "UUID", group: groupExecution, mode: modeExecutionID,
		usage: "use this id instead of a new one"},
	{name: "dry-run", group: groupExecution, mode: func(i *invocation, v string) error { return parseSwitch(&i.dryRun, v) },
		usage: "print the launch plan and run nothing"},
	{name: "detach", short: 'd', group: groupExecution, mode: func(i *invocation, v string) error { return parseSwitch(&i.detach, v) },
		usage: "print the id and return; the timeout holds all the same (see ps, logs, wait)"},
	{name: "address", value: "SOCKET", group: groupExecution, mode: modeAddress,
		usage: "the daemon to use (default $CAPSULE_ADDRESS, else capsuled.sock of the state directory)"},
	{name: "embedded", group: groupExecution, mode: func(i *invocation, v string) error { return parseSwitch(&i.embedded, v) },
		usage: "use no daemon even if there is one"},

	{name: "memory", short: 'm', value: "SIZE", group: groupLimits, pointer: "/resources/memory_bytes", apply: applyMemory,
		usage: "memory limit: bytes, or 64M, 1G, 1.5GiB (default 256M)"},
	{name: "cpus", value: "N", group: groupLimits, pointer: "/resources/cpu_quota", apply: applyCPUs,
		usage: "ceiling in cores, for example 0.5 (default: none)"},
	{name: "cpu", value: "SHARES", group: groupLimits, pointer: "/resources/cpu_shares", apply: applyCPUShares,
		usage: "relative weight, 2 to 262144 (default 1024)"},
	{name: "cpu-time", value: "DURATION", group: groupLimits, pointer: "/resources/cpu_time_ms", apply: applyCPUTime,
		usage: "limit of the total CPU time (default: none)"},
	{name: "max-pids", value: "N", group: groupLimits, pointer: "/resources/max_pids", apply: applyMaxPids,
		usage: "limit of processes and threads (default 100)"},
	{name: "disk", value: "SIZE", group: groupLimits, pointer: "/resources/disk_bytes", apply: applyDisk,
		usage: "size of /workspace and of /tmp (default 64M)"},
	{name: "io", value: "KEY=RATE", group: groupLimits, pointer: "/resources/io", apply: applyIO,
		usage: "bound the traffic to each disk in a second: read=10M, write=10M, read-ops=500 or write-ops=500 (repeatable)"},
	{name: "max-output", value: "SIZE", group: groupLimits, pointer: "/resources/max_output_bytes", apply: applyMaxOutput,
		usage: "bytes kept of each output stream (default 1M)"},
	{name: "output-policy", value: "POLICY", group: groupLimits, pointer: "/resources/output_policy", apply: applyOutputPolicy,
		usage: "beyond that: truncate, tail or kill (default truncate)"},
	{name: "rlimit", value: "NAME=SOFT[:HARD]", group: groupLimits, pointer: "/resources/rlimits", apply: applyRlimit,
		usage: "set a resource limit, for example nofile=4096 (repeatable)"},

	{name: "readonly", value: "PATH", group: groupFiles, pointer: "/isolation/readonly_paths", apply: applyReadonly,
		usage: "show a host path at the same place, read-only (repeatable)"},
	{name: "writable", value: "PATH", group: groupFiles, pointer: "/isolation/writable_paths", apply: applyWritable,
		usage: "show a host path at the same place, writable (repeatable)"},
	{name: "bind", value: "SRC:DEST[:ro|rw]", group: groupFiles, pointer: "/isolation/bind_mounts", apply: applyBind,
		usage: "show a host path elsewhere, read-only unless :rw (repeatable)"},
	{name: "rootfs", value: "DIR", group: groupFiles, pointer: "/isolation/rootfs", apply: applyRootfs,
		usage: "use a directory as the root instead of the host's system directories"},

	{name: "network", group: groupIsolation, pointer: "/isolation/network", apply: applyNetwork,
		usage: "share the host's network (default: loopback only)"},
	{name: "user", value: "UID[:GID]", group: groupIsolation, pointer: "/isolation/user", apply: applyUser,
		usage: "user inside the sandbox (default 1000:1000)"},
	{name: "hostname", value: "NAME", group: groupIsolation, pointer: "/isolation/hostname", apply: applyHostname,
		usage: "host name inside the sandbox (default capsule)"},
	{name: "seccomp", value: "NAME|FILE.json", group: groupIsolation, pointer: "/isolation/seccomp", apply: applySeccomp,
		usage: "system call filter: default (where nothing is said), strict, network, audit, unconfined, or a file"},
	{name: "no-init", group: groupIsolation, pointer: "/isolation/init", apply: applyNoInit,
		usage: "make the command pid 1 itself, without a reaping init"},
	{name: "allow-degraded", value: "NAME", group: groupIsolation, pointer: "/isolation/allow_degraded", apply: applyAllowDegraded,
		usage: "run even if this wall or limit cannot be enforced (repeatable)"},

	{name: "json", group: groupOutput, mode: modeJSON,
		usage: "read an ExecutionRequest on stdin, print the ExecutionResponse"},
	{name: "output", short: 'o', value: "FORMAT", group: groupOutput, mode: modeOutput,
		usage: "human (the default: stream the output), json (print the response) or template=TEXT (a Go template over it)"},
	{name: "pretty", group: groupOutput, mode: func(i *invocation, v string) error { return parseSwitch(&i.pretty, v) },
		usage: "indent the JSON"},
	{name: "exit-code-mode", value: "MODE", group: groupOutput, mode: modeExitCode,
		usage: "payload (the default), or envelope: 0 whenever a response was printed"},
	{name: "quiet", short: 'q', group: groupOutput, mode: func(i *invocation, v string) error { return parseSwitch(&i.quiet, v) },
		usage: "say nothing on stderr about a command that ran: the exit status tells"},
	{name: "verbose", short: 'v', group: groupOutput, mode: func(i *invocation, v string) error { return parseSwitch(&i.verbose, v) },
		usage: "print metrics and enforcement on stderr afterwards"},
	{name: "help", short: 'h', group: groupOutput, mode: func(i *invocation, v string) error { return parseSwitch(&i.help, v) },
		usage: "print this text"},
}

func modeJSON(i *invocation, v string) error {
	if err := parseSwitch(&i.jsonInput, v); err != nil {
		return err
	}
	i.jsonOutput = i.jsonOutput || i.jsonInput
	return nil
}

func modeOutput(i *invocation, v string) error {
	f, err := parseFormat(v)
	if err != nil {
		return err
	}
	i.template, i.jsonOutput = f.template, f.json || i.jsonInput
	return nil
}

func modeExitCode(i *invocation, v string) error {
	switch v {
	case "payload", "envelope":
		i.envelope = v == "envelope"
		return nil
	}
	return fault.New(fault.InvalidValue, "", strconv.Quote(v)+" is neither payload nor envelope")
}

// modeAddress takes the path of a unix socket, also in the form of a URL.
func modeAddress(i *invocation, v string) error {
	if v = strings.TrimPrefix(strings.TrimPrefix(v, "unix:"), "//"); v == "" {
		return fault.New(fault.InvalidValue, "", "is empty")
	}
	i.address = v
	return nil
}
