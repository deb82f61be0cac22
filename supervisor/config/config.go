package config

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// Config is one whole configuration, every key filled in. It is not changed
// after Load and may be shared.
type Config struct {
	Security   Security
	Limits     Limits
	Monitoring Monitoring
	Pool       Pool
	State      State
	Daemon     Daemon

	files    []string
	origins  map[string]string // dotted key: the file that set it
	defaults map[string]any    // [defaults] as merged
	profiles map[string]*profile
}

// Security is what a caller may ask for.
type Security struct {
	Rules
	// AuditLog is the file of decisions; empty: none is kept.
	AuditLog string
	// AuditMaxBytes is the size at which it is rotated; 0: never by capsule.
	AuditMaxBytes int64
	// AuditKeep is how many rotated files stay.
	AuditKeep int64
	// Users are the rules of single uids, complete: what a section does not say
	// it has from Rules.
	Users map[uint32]*Rules
}

// Rules are the policy for one caller. docs/configuration.md describes each.
type Rules struct {
	AllowedCommands, BlockedCommands []string
	AllowedPatterns, BlockedPatterns []string
	AllowNetwork, AllowUnconfined    bool
	AllowProcess                     bool
	AllowCustomSeccomp               bool
	MaxConcurrent                    int64
	// Trusted callers of another uid may use what the supervisor's own user may.
	Trusted bool
	Paths   Paths
}

// Paths say which host paths a request may name. All are absolute and clean.
type Paths struct {
	Readable, Writable, Rootfs, Refused, Exempt []string
}

// Limits are ceilings.
type Limits struct {
	// Max binds every caller.
	Max Ceilings
	// Users bind single uids in addition.
	Users map[uint32]*Ceilings
	// Owner binds each caller that is neither root nor the supervisor's user.
	Owner Owner
}

// Owner bounds what one other user has of a daemon. 0: no bound.
type Owner struct {
	MemoryBytes, MaxOutputBytes, HistoryCount, HistoryBytes int64
}

// Monitoring is what a daemon watches.
type Monitoring struct {
	Enabled    bool
	IntervalMS int64
	// TimelineMS is the time between the first points of a time line.
	TimelineMS int64
	Prometheus string
	// Percentages of a limit whose crossing is an event; 0: none is.
	MemoryPercent, CPUPercent, OutputPercent int64
}

// Watches says whether anything is to be looked at.
func (m *Monitoring) Watches() bool {
	return m.Enabled && m.MemoryPercent+m.CPUPercent+m.OutputPercent > 0
}

// Timeline is shimapi.Bootstrap.TimelineMS.
func (m *Monitoring) Timeline() int64 {
	if !m.Enabled {
		return -1
	}
	return m.TimelineMS
}

// Pool is about sandboxes that are prepared ahead.
type Pool struct {
	// Size is how many there may be; IdleSeconds is how long nobody may ask for one
	// until their number falls.
	Size, IdleSeconds int64
}

// State is where capsule keeps what, and for how long.
type State struct {
	Directory                                     string
	HistoryAgeSeconds, HistoryCount, HistoryBytes int64
	HistoryOutputBytes, SweepIntervalMS           int64
}

// Daemon is about capsuled alone.
type Daemon struct {
	Address, Group, LogFormat, LogLevel string
	MaxConcurrent, MaxQueued            int64
	// MemoryBudgetBytes is -1 for a part of the host's memory.
	MemoryBudgetBytes int64
}

// Default is the configuration without any file.
func Default() *Config {
	c := &Config{origins: map[string]string{}, profiles: map[string]*profile{}}
	for _, k := range keys() {
		k.reset(c)
	}
	return c
}

// Files are the files that were read, in the order in which they were.
func (c *Config) Files() []string { return slices.Clone(c.files) }

// RulesFor are the rules for a caller.
func (c *Config) RulesFor(uid uint32) *Rules {
	if r := c.Security.Users[uid]; r != nil {
		return r
	}
	return &c.Security.Rules
}

// Load reads files, the later ones over the earlier ones. lookupEnv resolves
// ${VAR:default} where a key allows it. All problems of all files are reported
// at once, as E1007.
func Load(files []string, lookupEnv func(string) (string, bool)) (*Config, error) {
	c := Default()
	c.files = slices.Clone(files)
	l := loader{config: c, lookupEnv: lookupEnv, tree: map[string]any{}}
	for _, path := range files {
		tree, err := read(path)
		if err != nil {
			l.faults = append(l.faults, err)
			continue
		}
		l.merge(path, "", l.tree, tree)
	}
	l.apply()
	if err := l.faults.Err(); err != nil {
		return nil, err
	}
	return c, nil
}

// loader puts documents together and takes them in.
type loader struct {
	config    *Config
	lookupEnv func(string) (string, bool)
	tree      map[string]any
	faults    fault.List
}

// merge puts from over into, key by key. A value that is a map, such as an
// environment, replaces the one before as a whole.
func (l *loader) merge(file, prefix string, into, from map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(from)) {
		dotted := join(prefix, name)
		value := from[name]
		table, isTable := value.(map[string]any)
		if !isTable || isMapValue(dotted) {
			into[name] = value
			l.config.origins[dotted] = file
			continue
		}
		below, ok := into[name].(map[string]any)
		if !ok {
			below = map[string]any{}
			into[name] = below
		}
		if len(table) == 0 {
			l.config.origins[dotted] = file
		}
		l.merge(file, dotted, below, table)
	}
}

// isMapValue says whether a key's value is a map with keys of the caller's.
func isMapValue(dotted string) bool {
	parts := strings.Split(dotted, ".")
	switch {
	case parts[0] == "defaults":
		parts = parts[1:]
	case parts[0] == "profiles" && len(parts) > 2:
		parts = parts[2:]
	default:
		return false
	}
	switch strings.Join(parts, ".") {
	case "environment", "labels", "resources.rlimits", "isolation.seccomp":
		return true
	}
	return false
}

func join(prefix, name string) string {
	if prefix == "" {
		return name
	}
	return prefix + "." + name
}

// refuse notes a problem with a dotted key.
func (l *loader) refuse(dotted, message, hint string) {
	if hint == "" {
		hint = "`capsulectl config default` prints every key, its form and its default."
	}
	f := fault.New(fault.ConfigFile, dotted, message).WithHint(hint).WithField("/" + strings.ReplaceAll(dotted, ".", "/"))
	f.Path = l.fileOf(dotted)
	l.faults = append(l.faults, f)
}

// fileOf is the file that has a key, or something below it.
func (l *loader) fileOf(dotted string) string {
	for at := dotted; ; {
		if file := l.config.origins[at]; file != "" {
			return file
		}
		i := strings.LastIndexByte(at, '.')
		if i < 0 {
			break
		}
		at = at[:i]
	}
	for _, k := range slices.Sorted(maps.Keys(l.config.origins)) {
		if strings.HasPrefix(k, dotted+".") {
			return l.config.origins[k]
		}
	}
	return ""
}

// apply takes the merged tree in.
func (l *loader) apply() {
	for _, name := range slices.Sorted(maps.Keys(l.tree)) {
		table, isTable := l.tree[name].(map[string]any)
		switch {
		case !slices.Contains(sections, name):
			l.refuse(name, "unknown section", spec.SuggestName(name, sections))
		case !isTable:
			l.refuse(name, "is a section, not a value", "Write ["+name+"] and its keys below it.")
		case name == "defaults":
			l.defaults(table)
		case name == "profiles":
			l.profiles(table)
		default:
			l.section(keys(), name, table)
		}
	}
	l.checkProfiles()
	l.checkWhole()
}

// sections are the tables at the top, in the order of the documentation.
var sections = []string{"defaults", "profiles", "security", "limits", "monitoring", "pool", "state", "daemon"}

// section takes in one table whose keys the list has.
func (l *loader) section(list []key, prefix string, table map[string]any) {
	// Values before the sections of single users, which begin as copies.
	for _, users := range []bool{false, true} {
		for _, name := range slices.Sorted(maps.Keys(table)) {
			if (name == "users") == users {
				l.entry(list, join(prefix, name), name, table[name])
			}
		}
	}
}

func (l *loader) entry(list []key, dotted, name string, value any) {
	below, isTable := value.(map[string]any)
	if isTable && (dotted == "security.users" || dotted == "limits.users") {
		l.users(dotted, below)
		return
	}
	var known []string
	prefix := strings.TrimSuffix(dotted, name)
	for i := range list {
		rest, ok := strings.CutPrefix(list[i].Name, prefix)
		if !ok {
			continue
		}
		first, _, deeper := strings.Cut(rest, ".")
		switch {
		case first != name:
			if !slices.Contains(known, first) {
				known = append(known, first)
			}
		case deeper != isTable && isTable:
			l.refuse(dotted, "is a value, not a section", "")
			return
		case deeper && !isTable:
			l.refuse(dotted, "is a section, not a value", "")
			return
		case deeper:
			l.section(list, dotted, below)
			return
		default:
			l.set(&list[i], dotted, value)
			return
		}
	}
	if prefix == "security." || prefix == "limits." {
		known = append(known, "users")
	}
	l.refuse(dotted, "unknown key", suggest(name, known))
}

// suggest is the hint for a name that a section does not know: one of its own
// that is near, or the section that has it.
func suggest(name string, known []string) string {
	near := spec.SuggestName(name, known)
	if strings.HasPrefix(near, "Did you mean") {
		return near
	}
	for _, k := range keys() {
		if strings.HasSuffix(k.Name, "."+name) {
			return "Did you mean `" + k.Name + "`?"
		}
	}
	return near
}

// users takes in the sections of single uids.
func (l *loader) users(dotted string, table map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(table)) {
		at := join(dotted, name)
		uid, err := strconv.ParseUint(name, 10, 32)
		below, isTable := table[name].(map[string]any)
		switch {
		case err != nil || strconv.FormatUint(uid, 10) != name || uid == 1<<32-1:
			l.refuse(at, "is not a uid", "Give the number that `id -u NAME` prints.")
		case !isTable:
			l.refuse(at, "is a section, not a value", "")
		case dotted == "security.users":
			rules := l.config.Security.Rules.clone()
			if l.config.Security.Users == nil {
				l.config.Security.Users = map[uint32]*Rules{}
			}
			l.config.Security.Users[uint32(uid)] = rules
			l.section(ruleKeys(at, func(*Config) *Rules { return rules }, true), at, below)
		default:
			ceilings := new(Ceilings)
			if l.config.Limits.Users == nil {
				l.config.Limits.Users = map[uint32]*Ceilings{}
			}
			l.config.Limits.Users[uint32(uid)] = ceilings
			l.section(ceilingKeys(at, func(*Config) *Ceilings { return ceilings }), at, below)
		}
	}
}

func (r *Rules) clone() *Rules {
	next := *r
	for _, list := range []*[]string{&next.AllowedCommands, &next.BlockedCommands, &next.AllowedPatterns, &next.BlockedPatterns,
		&next.Paths.Readable, &next.Paths.Writable, &next.Paths.Rootfs, &next.Paths.Refused, &next.Paths.Exempt} {
		*list = slices.Clone(*list)
	}
	return &next
}

// checkWhole finds what only several keys together make wrong.
func (l *loader) checkWhole() {
	check := func(prefix string, r *Rules) {
		if len(r.AllowedPatterns) > 0 && slices.Contains(r.AllowedCommands, AnyCommand) {
			l.refuse(prefix+".allowed_patterns", "has no effect while allowed_commands allows every command",
				`Set allowed_commands too: to [] when the patterns alone are to decide.`)
		}
	}
	check("security", &l.config.Security.Rules)
	for _, uid := range slices.Sorted(maps.Keys(l.config.Security.Users)) {
		check("security.users."+strconv.FormatUint(uint64(uid), 10), l.config.Security.Users[uid])
	}
}
