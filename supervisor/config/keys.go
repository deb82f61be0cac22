package config

import (
	"path"
	"regexp"
	"strings"
)

// AnyCommand in allowed_commands stands for every command.
const AnyCommand = "*"

// key is one key besides those of requests. The tables are built when they are
// asked for: a program that finds no file never does.
type key struct {
	// Name is dotted.
	Name string
	// at is the address of the value: *bool, *int64, *float64, *string or *[]string.
	at func(*Config) any
	// def is the default, of the type that at points to.
	def any
	// min and max bound a number. Max 0: no bound.
	min, max int64
	// unlessZero, when not 0, is the least that a number may be that is not 0.
	unlessZero int64
	enum       []string
	// rule checks a string, or each string of a list; empty: it is right.
	rule func(string) string
	// expand: ${VAR:default} is replaced in it.
	expand bool
	doc    string
	// accepts says what the other columns cannot.
	accepts string
}

// reset stores the default.
func (k *key) reset(c *Config) {
	switch p := k.at(c).(type) {
	case *bool:
		*p, _ = k.def.(bool)
	case *int64:
		n, _ := k.def.(int)
		*p = int64(n)
	case *float64:
		*p = 0
	case *string:
		*p, _ = k.def.(string)
	case *[]string:
		s, _ := k.def.([]string)
		*p = append([]string{}, s...)
	}
}

// keys are all of them but those of single users, in the order of the documentation.
func keys() []key {
	all := ruleKeys("security", func(c *Config) *Rules { return &c.Security.Rules }, false)
	all = append(all,
		key{Name: "security.audit_log", at: func(c *Config) any { return &c.Security.AuditLog }, def: "", rule: pathOrNone, expand: true,
			doc: "File to which one JSON line is appended for each decision and each end. Empty: none. Without a daemon, an execution is refused when its line cannot be written (E6001)."},
		key{Name: "security.audit_max_bytes", at: func(c *Config) any { return &c.Security.AuditMaxBytes }, def: 64 << 20,
			doc: "Size at which the audit log is renamed to `NAME.1` and begun anew. 0: capsule does not rotate it."},
		key{Name: "security.audit_keep", at: func(c *Config) any { return &c.Security.AuditKeep }, def: 5, min: 1, max: 1000,
			doc: "How many rotated audit logs stay; the oldest is removed."},
	)
	all = append(all, ceilingKeys("limits.max", func(c *Config) *Ceilings { return &c.Limits.Max })...)
	all = append(all, ownerKeys()...)
	all = append(all, daemonKeys()...)
	return all
}

// ruleKeys are the keys of the policy for one caller, below prefix.
func ruleKeys(prefix string, of func(*Config) *Rules, user bool) []key {
	list := func(name string, at func(*Rules) *[]string, def []string, rule func(string) string, expand bool, doc string) key {
		return key{Name: prefix + "." + name, at: func(c *Config) any { return at(of(c)) }, def: def, rule: rule, expand: expand, doc: doc}
	}
	flag := func(name string, at func(*Rules) *bool, def bool, doc string) key {
		return key{Name: prefix + "." + name, at: func(c *Config) any { return at(of(c)) }, def: def, doc: doc}
	}
	all := []key{
		list("allowed_commands", func(r *Rules) *[]string { return &r.AllowedCommands }, []string{AnyCommand}, allowedName, false,
			"Programs that may be run: exact basenames or absolute paths inside the sandbox. `[\"*\"]` is every program, `[]` none. A program that the caller brought along by a bind is not one that a name allows. See [policy](policy.md)."),
		list("blocked_commands", func(r *Rules) *[]string { return &r.BlockedCommands }, nil, commandName, false,
			"Programs that may not be run, by exact basename or absolute path: refused (E5001), and hidden inside every sandbox. What this can and cannot keep out is told in [policy](policy.md)."),
		list("allowed_patterns", func(r *Rules) *[]string { return &r.AllowedPatterns }, nil, pattern, false,
			"Regular expressions (RE2), each for the whole command with its arguments joined by one space. What one matches may run besides allowed_commands."),
		list("blocked_patterns", func(r *Rules) *[]string { return &r.BlockedPatterns }, nil, pattern, false,
			"Regular expressions (RE2) looked for anywhere in the command with its arguments joined by one space. What one matches is refused."),
		flag("allow_network", func(r *Rules) *bool { return &r.AllowNetwork }, true, "Whether a request may have the host's network."),
		flag("allow_unconfined", func(r *Rules) *bool { return &r.AllowUnconfined }, false, "Whether a request may run without a system call filter (`seccomp: unconfined`)."),
		flag("allow_process_backend", func(r *Rules) *bool { return &r.AllowProcess }, false, "Whether a request may run without any wall, as an ordinary process (`backend: process`)."),
		flag("allow_custom_seccomp", func(r *Rules) *bool { return &r.AllowCustomSeccomp }, true, "Whether a request may bring a filter of its own."),
		{Name: prefix + ".max_concurrent_executions", at: func(c *Config) any { return &of(c).MaxConcurrent }, def: 0, max: 1 << 20,
			doc: "Executions that one uid may have at a time, those that wait among them; beyond it E4006. 0: any number."},
		list("paths.readable", func(r *Rules) *[]string { return &r.Paths.Readable }, []string{"/"}, cleanPath, true,
			"Directories below which a request may show host paths read-only. `[]`: nowhere."),
		list("paths.writable", func(r *Rules) *[]string { return &r.Paths.Writable }, []string{"/"}, cleanPath, true,
			"Directories below which a request may show host paths writable. `[]`: nowhere."),
		list("paths.rootfs", func(r *Rules) *[]string { return &r.Paths.Rootfs }, []string{"/"}, cleanPath, true,
			"Directories below which `isolation.rootfs` may lie. `[]`: nowhere. Other than `[\"/\"]`, its programs count as the host's own for allowed_commands."),
		list("paths.refused", func(r *Rules) *[]string { return &r.Paths.Refused }, nil, cleanPath, true,
			"Paths that no request may name, with all below them and every directory that holds them."),
		list("paths.exempt", func(r *Rules) *[]string { return &r.Paths.Exempt }, nil, exemptPath, true,
			"Paths that may be named, with all below them, although capsule refuses them by itself (such as `/etc/ssl/private`)."),
	}
	if user {
		all = append(all, flag("trusted", func(r *Rules) *bool { return &r.Trusted }, false,
			"Whether this caller of a daemon may use the rights of the daemon's own user: host paths, its network, filters of his own."))
	}
	return all
}

func ownerKeys() []key {
	of := func(name string, at func(*Owner) *int64, def int, doc string) key {
		return key{Name: "limits.owner." + name, at: func(c *Config) any { return at(&c.Limits.Owner) }, def: def, doc: doc + " It binds each caller of a daemon who is neither root nor the daemon's own user. 0: no bound."}
	}
	return []key{
		of("memory_bytes", func(o *Owner) *int64 { return &o.MemoryBytes }, 0, "Sum of the memory limits of what one caller has running or waiting; beyond it E4006."),
		of("max_output_bytes", func(o *Owner) *int64 { return &o.MaxOutputBytes }, 16<<20, "What is kept of each output stream; a request for more is E1003."),
		of("history_count", func(o *Owner) *int64 { return &o.HistoryCount }, 0, "Ended executions that are kept of one caller; the oldest go first."),
		of("history_bytes", func(o *Owner) *int64 { return &o.HistoryBytes }, 0, "Bytes of ended executions that are kept of one caller; the oldest go first."),
	}
}

func daemonKeys() []key {
	return []key{
		{Name: "monitoring.enabled", at: func(c *Config) any { return &c.Monitoring.Enabled }, def: true, doc: "Whether a daemon watches running executions for the thresholds below, and whether executions have a [time line](limits.md#accounting)."},
		{Name: "monitoring.interval_ms", at: func(c *Config) any { return &c.Monitoring.IntervalMS }, def: 1000, min: 100, max: 3600000, doc: "Time between two looks for the thresholds, in milliseconds."},
		{Name: "monitoring.timeline_ms", at: func(c *Config) any { return &c.Monitoring.TimelineMS }, def: 100, min: 100, max: 3600000,
			doc: "Time until the first point of an execution's time line and between two points, in milliseconds. It doubles whenever there are 256, and begins as a multiple [among many executions](limits.md#accounting)."},
		{Name: "monitoring.prometheus", at: func(c *Config) any { return &c.Monitoring.Prometheus }, def: "", expand: true,
			doc: "Where a daemon serves metrics: `unix:PATH` or a loopback `HOST:PORT`. Empty: nowhere. Taken in at the start only."},
		{Name: "monitoring.memory_percent", at: func(c *Config) any { return &c.Monitoring.MemoryPercent }, def: 0, max: 100, doc: "Percentage of memory_bytes whose crossing is an event (`execution.threshold`), once for each execution. 0: none."},
		{Name: "monitoring.cpu_percent", at: func(c *Config) any { return &c.Monitoring.CPUPercent }, def: 0, max: 100, doc: "The same of cpu_time_ms."},
		{Name: "monitoring.output_percent", at: func(c *Config) any { return &c.Monitoring.OutputPercent }, def: 0, max: 100, doc: "The same of max_output_bytes, for either stream."},
		{Name: "pool.size", at: func(c *Config) any { return &c.Pool.Size }, def: 4, max: 256,
			doc: "How many sandboxes a daemon may keep prepared: of the usual walls, and of what several requests wanted. It keeps as many as the demand asks for. 0: none."},
		{Name: "pool.idle_seconds", at: func(c *Config) any { return &c.Pool.IdleSeconds }, def: 60, min: 1, max: 24 * 3600,
			doc: "After so long without a request it keeps half as many, and in the end none."},
		{Name: "state.directory", at: func(c *Config) any { return &c.State.Directory }, def: "", rule: pathOrNone, expand: true,
			doc: "The [state directory](state-dir.md) of capsuled. Empty: `$CAPSULE_STATE`, else `/run/capsule` as root, else `$XDG_RUNTIME_DIR/capsule`. capsulectl goes by the variable alone."},
		{Name: "state.history_age_seconds", at: func(c *Config) any { return &c.State.HistoryAgeSeconds }, def: 30 * 24 * 3600, max: 100 * 365 * 24 * 3600, doc: "How long a daemon keeps ended executions. 0: for ever."},
		{Name: "state.history_count", at: func(c *Config) any { return &c.State.HistoryCount }, def: 10_000, max: 1 << 30, doc: "How many it keeps. 0: any number."},
		{Name: "state.history_bytes", at: func(c *Config) any { return &c.State.HistoryBytes }, def: 1 << 30, doc: "How many bytes of them. 0: any amount."},
		{Name: "state.history_output_bytes", at: func(c *Config) any { return &c.State.HistoryOutputBytes }, def: 512 << 20, doc: "How much of that their output may be; the oldest output goes first, its record stays. 0: any amount."},
		{Name: "state.sweep_interval_ms", at: func(c *Config) any { return &c.State.SweepIntervalMS }, def: 10_000, min: 100, max: 86400000, doc: "Time between two looks of a daemon for what dead shims left, in milliseconds. Taken in at the start only."},
		{Name: "daemon.address", at: func(c *Config) any { return &c.Daemon.Address }, def: "", rule: pathOrNone, expand: true,
			doc: "Socket of capsuled. Empty: `$CAPSULE_ADDRESS`, else `capsuled.sock` in the state directory. Taken in at the start only. capsulectl goes by the variable alone."},
		{Name: "daemon.group", at: func(c *Config) any { return &c.Daemon.Group }, def: "", doc: "Group that may use the socket, by name or number. Empty: its owner alone. Taken in at the start only."},
		{Name: "daemon.log_format", at: func(c *Config) any { return &c.Daemon.LogFormat }, def: "text", enum: []string{"text", "json"}, doc: "Form of the log on stderr. Taken in at the start only."},
		{Name: "daemon.log_level", at: func(c *Config) any { return &c.Daemon.LogLevel }, def: "info", enum: []string{"debug", "info", "warn", "error"}, doc: "Least level of what is logged. Taken in at the start only."},
		{Name: "daemon.max_concurrent", at: func(c *Config) any { return &c.Daemon.MaxConcurrent }, def: 0, max: 1<<31 - 1, doc: "Executions that run at a time, of all callers together. 0: any number."},
		{Name: "daemon.max_queued", at: func(c *Config) any { return &c.Daemon.MaxQueued }, def: 256, max: 1<<31 - 1, doc: "Executions that wait for their turn. 0: what cannot run at once is refused."},
		{Name: "daemon.memory_budget_bytes", at: func(c *Config) any { return &c.Daemon.MemoryBudgetBytes }, def: -1, min: -1, doc: "Sum of the memory limits of those that run. 0: any; -1: 80 % of the host's memory."},
	}
}

func cleanPath(s string) string {
	if !path.IsAbs(s) || path.Clean(s) != s {
		return "is not an absolute, clean path"
	}
	return ""
}

func exemptPath(s string) string {
	if s == "/" {
		return "would exempt everything"
	}
	return cleanPath(s)
}

func pathOrNone(s string) string {
	if s == "" {
		return ""
	}
	return cleanPath(s)
}

func commandName(s string) string {
	switch {
	case s == "" || s == "." || s == "..":
		return "names no command"
	case strings.HasPrefix(s, "/"):
		return cleanPath(s)
	case strings.Contains(s, "/"):
		return "is neither a basename nor an absolute path"
	case strings.ContainsAny(s, "*?[ \t\n"):
		return "is not an exact name; blocked_patterns and allowed_patterns are for expressions"
	}
	return ""
}

func allowedName(s string) string {
	if s == AnyCommand {
		return ""
	}
	return commandName(s)
}

func pattern(s string) string {
	if s == "" {
		return "is empty, and would match everything"
	}
	if _, err := regexp.Compile(s); err != nil {
		return strings.TrimPrefix(err.Error(), "error parsing regexp: ")
	}
	return ""
}
