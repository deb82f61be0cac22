// Package policy decides what a caller may run: which commands, with which
// walls left out, up to which ceilings. The supervisor applies it to every
// request, whoever embeds it and whatever the client has checked.
package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/config"
)

// Policy is a configuration made ready for use. It is not changed afterwards
// and may be shared. A nil *Policy is not one: who has none leaves it out.
type Policy struct {
	config *config.Config
	hash   string
	all    *rules
	users  map[uint32]*rules
}

// rules are config.Rules with their expressions compiled.
type rules struct {
	*config.Rules
	section          string // dotted: where they stand
	allowed, blocked []*regexp.Regexp
	shim             shimapi.Policy
}

// New makes a configuration ready. E1007 when an expression in it is wrong,
// which config.Load has found already.
func New(c *config.Config) (*Policy, error) {
	p := &Policy{config: c, users: map[uint32]*rules{}}
	var err error
	if p.hash, err = hash(c); err != nil {
		return nil, err
	}
	if p.all, err = p.compile("security", &c.Security.Rules); err != nil {
		return nil, err
	}
	for uid, r := range c.Security.Users {
		if p.users[uid], err = p.compile("security.users."+strconv.FormatUint(uint64(uid), 10), r); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// hash identifies what decides: rules and ceilings, not where things are kept.
func hash(c *config.Config) (string, error) {
	security := c.Security
	security.AuditLog, security.AuditKeep, security.AuditMaxBytes = "", 0, 0
	// Maps are encoded in the order of their keys.
	data, err := json.Marshal(struct {
		Version  int
		Security config.Security
		Limits   config.Limits
	}{1, security, c.Limits})
	if err != nil {
		return "", fault.Wrap(fault.ConfigFile, "hash policy", err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

func (p *Policy) compile(section string, r *config.Rules) (*rules, error) {
	c := &rules{Rules: r, section: section}
	for _, list := range []struct {
		from []string
		to   *[]*regexp.Regexp
		form func(string) string
	}{
		{r.AllowedPatterns, &c.allowed, func(s string) string { return `\A(?s:` + s + `)\z` }},
		{r.BlockedPatterns, &c.blocked, func(s string) string { return `(?s:` + s + `)` }},
	} {
		for _, text := range list.from {
			e, err := regexp.Compile(list.form(text))
			if err != nil {
				return nil, fault.Wrap(fault.ConfigFile, "compile "+section+" pattern "+strconv.Quote(text), err)
			}
			*list.to = append(*list.to, e)
		}
	}
	c.shim = shimapi.Policy{
		Hash: p.hash, Section: section, AllowUnconfined: r.AllowUnconfined, AllowProcess: r.AllowProcess,
		AnyCommand: slices.Contains(r.AllowedCommands, config.AnyCommand),
		Allowed:    slices.DeleteFunc(slices.Clone(r.AllowedCommands), func(s string) bool { return s == config.AnyCommand }),
		Blocked:    r.BlockedCommands,
		Readable:   both(r.Paths.Readable), Writable: both(r.Paths.Writable), Rootfs: both(r.Paths.Rootfs),
		Refused: both(r.Paths.Refused), Exempt: both(r.Paths.Exempt),
		OwnRootfs: slices.Equal(r.Paths.Rootfs, []string{"/"}),
	}
	return c, nil
}

// both are paths as they are written and as they lead: requests are judged by
// name first, then by what a path really is.
func both(paths []string) []string {
	all := make([]string, 0, len(paths))
	for _, p := range paths {
		all = append(all, p)
		if real, err := filepath.EvalSymlinks(p); err == nil && real != p {
			all = append(all, real)
		}
	}
	return all
}

func (p *Policy) of(uid uint32) *rules {
	if r := p.users[uid]; r != nil {
		return r
	}
	return p.all
}

// Config is what the policy was made of.
func (p *Policy) Config() *config.Config { return p.config }

// Hash identifies the policy: SHA-256, hexadecimal.
func (p *Policy) Hash() string { return p.hash }

// Trusted says whether a caller may use the rights of the supervisor's user.
func (p *Policy) Trusted(uid uint32) bool { return p.of(uid).Trusted }

// MaxConcurrent is how many executions a caller may have; 0: any number.
func (p *Policy) MaxConcurrent(uid uint32) int { return int(p.of(uid).MaxConcurrent) }

// Base is config.Config.Base for a caller.
func (p *Policy) Base(profile string, uid uint32) (*spec.Request, error) {
	return p.config.Base(profile, uid)
}

// Check refuses what the caller may not ask for, all of it at once: E5001 and
// E5002 for commands and paths, E5004 for walls, E1003 for ceilings. Each names
// its rule in the message and in details.rule. What it lets through gets the
// ceilings of what it did not limit.
func (p *Policy) Check(uid uint32, r *spec.Request) error {
	rules := p.of(uid)
	var all fault.List
	all = append(all, rules.command(r.Command)...)
	all = append(all, rules.walls(&r.Isolation)...)
	all = append(all, p.ceilings(uid, r)...)
	if err := all.Err(); err != nil {
		return err
	}
	most := p.config.CeilingsFor(uid)
	most.Lower(r) // only what is null is above them
	return nil
}

func (p *Policy) ceilings(uid uint32, r *spec.Request) fault.List {
	all := p.config.Limits.Max.Exceeded(r, "limits.max")
	if own := p.config.Limits.Users[uid]; own != nil {
		for _, f := range own.Exceeded(r, "limits.users."+strconv.FormatUint(uint64(uid), 10)) {
			if !slices.ContainsFunc(all, func(o *fault.Fault) bool { return o.Field == f.Field }) {
				all = append(all, f)
			}
		}
	}
	return all
}

// refusal is a fault that names a rule.
func refusal(code fault.Code, rule, field, message, hint string) *fault.Fault {
	f := fault.New(code, "check "+rule, message).WithField(field).WithHint(hint)
	f.Details = map[string]any{"rule": rule}
	return f
}

const commandField = "/command"

// command judges a command by what it is called. What the name leads to inside
// the sandbox is for the shim, which knows.
func (r *rules) command(command []string) fault.List {
	if len(command) == 0 {
		return nil // validation tells
	}
	name := command[0]
	whole := strings.Join(command, " ")
	var all fault.List
	for _, b := range r.BlockedCommands {
		if Names(b, name) {
			all = append(all, refusal(fault.CommandRefused, r.section+".blocked_commands", commandField, strconv.Quote(b)+" is blocked", "Run something else, or ask who keeps the policy."))
		}
	}
	for i, e := range r.blocked {
		if e.MatchString(whole) {
			all = append(all, refusal(fault.CommandRefused, r.section+".blocked_patterns", commandField, "the command matches "+strconv.Quote(r.BlockedPatterns[i]), "Run something else, or ask who keeps the policy."))
		}
	}
	if len(all) == 0 && !r.shim.AnyCommand && !r.matched(command) && !slices.ContainsFunc(r.AllowedCommands, func(a string) bool {
		return Names(a, name) || strings.HasPrefix(a, "/") && !strings.HasPrefix(name, "/") && path.Base(a) == path.Base(name)
	}) {
		all = append(all, refusal(fault.CommandRefused, r.section+".allowed_commands", commandField, strconv.Quote(cut(name))+" is not among the allowed commands", "Allowed are: "+strings.Join(append(slices.Clone(r.AllowedCommands), r.AllowedPatterns...), ", ")+"."))
	}
	return all
}

func cut(s string) string {
	if len(s) > 64 {
		return s[:64]
	}
	return s
}

// matched says whether an allowed pattern matches.
func (r *rules) matched(command []string) bool {
	whole := strings.Join(command, " ")
	return slices.ContainsFunc(r.allowed, func(e *regexp.Regexp) bool { return e.MatchString(whole) })
}

// Names says whether a rule, a basename or an absolute path, means a command as
// it is written.
func Names(rule, command string) bool { return shimapi.Names(rule, path.Clean(command)) }

// walls judges what of the sandbox a request leaves out.
func (r *rules) walls(i *spec.Isolation) fault.List {
	var all fault.List
	refuse := func(key, field, message, hint string) {
		all = append(all, refusal(fault.NotAuthorised, r.section+"."+key, field, message, hint))
	}
	if i.Network && !r.AllowNetwork {
		refuse("allow_network", "/isolation/network", "the host's network is not allowed", "Leave network out.")
	}
	if i.Seccomp.Name == spec.SeccompUnconfined && !r.AllowUnconfined {
		refuse("allow_unconfined", "/isolation/seccomp", "running without a system call filter is not allowed", "Use the default or the network profile.")
	}
	if i.Backend == spec.BackendProcess && !r.AllowProcess {
		refuse("allow_process_backend", "/isolation/backend", "running without walls is not allowed", "Use the namespace backend.")
	}
	if i.Seccomp.Custom != nil && !r.AllowCustomSeccomp {
		refuse("allow_custom_seccomp", "/isolation/seccomp", "filters of the caller's own are not allowed", "Use a shipped profile.")
	}
	return all
}

// ForShim is what the shim of an execution is told to apply.
func (p *Policy) ForShim(uid uint32, command []string) *shimapi.Policy {
	r := p.of(uid)
	s := r.shim
	s.Matched = r.matched(command)
	return &s
}
