package config

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// profile is a named set of defaults, one of the file's.
type profile struct {
	// inherits is the profile that this one changes; empty: none, or the shipped
	// one of the same name.
	inherits    string
	description string
	fields      map[string]any // as a request has them
}

// The keys of a profile besides those of requests.
const (
	keyInherits    = "inherits"
	keyDescription = "description"
)

// defaults takes [defaults] in.
func (l *loader) defaults(table map[string]any) {
	l.fields("defaults", spec.Default(), table)
	l.config.defaults = table
}

// fields checks a table of request fields by laying it over r, and reports what
// is wrong under prefix.
func (l *loader) fields(prefix string, r *spec.Request, table map[string]any) {
	err := overlay(r, table)
	if err == nil {
		return
	}
	var list fault.List
	if !errors.As(err, &list) {
		list = fault.List{fault.From(err, fault.ConfigFile)}
	}
	for _, f := range list {
		l.refuse(prefix+strings.ReplaceAll(f.Field, "/", "."), f.Message(), f.Hint)
	}
}

// overlay lays a table of request fields over r.
func overlay(r *spec.Request, table map[string]any) error {
	if dated(table) {
		return fault.New(fault.ConfigFile, "", "has a date or a time, which no field is").WithHint("Write it in quotes if it is meant as a string.")
	}
	data, err := json.Marshal(table)
	if err != nil { // an infinite number
		return fault.Wrap(fault.ConfigFile, "", err)
	}
	return r.Overlay(data)
}

// dated finds TOML's dates, which encoding would turn into strings.
func dated(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		for _, e := range v {
			if dated(e) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, dated)
	case nil, bool, int64, float64, string:
	default:
		return true
	}
	return false
}

// profiles takes [profiles] in.
func (l *loader) profiles(table map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(table)) {
		at := "profiles." + name
		below, ok := table[name].(map[string]any)
		if !ok {
			l.refuse(at, "is a section, not a value", "")
			continue
		}
		if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
			l.refuse(at, "has a name with other characters than letters, digits, - and _", "")
			continue
		}
		p := &profile{fields: map[string]any{}}
		for key, value := range below {
			text, isText := value.(string)
			switch {
			case key != keyInherits && key != keyDescription:
				p.fields[key] = value
			case !isText:
				l.refuse(join(at, key), "must be a string, not "+kindOf(value), "")
			case key == keyInherits:
				p.inherits = text
			default:
				p.description = text
			}
		}
		l.fields(at, spec.Default(), p.fields)
		l.config.profiles[name] = p
	}
}

// checkProfiles finds profiles that inherit from nothing or from themselves.
func (l *loader) checkProfiles() {
	for _, name := range slices.Sorted(maps.Keys(l.config.profiles)) {
		if _, err := l.config.chain(name); err != nil {
			l.refuse("profiles."+name+"."+keyInherits, fault.From(err, fault.ConfigFile).Message(), fault.From(err, fault.ConfigFile).Hint)
		}
	}
}

// layer is one step of a profile's inheritance.
type layer struct {
	name   string // of the profile
	fields map[string]any
	file   bool // it is the file's and not shipped
}

// chain is what a profile consists of, the farthest ancestor first.
func (c *Config) chain(name string) ([]layer, error) {
	var all []layer
	seen := map[string]bool{}
	for at := name; ; {
		p := c.profiles[at]
		if p == nil || seen[at] {
			shipped := shippedFields(at)
			switch {
			case shipped != nil && (p == nil || p.inherits == "" || p.inherits == at):
				all = append(all, layer{at, shipped, false})
			case p != nil:
				return nil, fault.New(fault.ConfigFile, "", "inherits from itself")
			default:
				return nil, c.unknownProfile(at)
			}
			break
		}
		seen[at] = true
		all = append(all, layer{at, p.fields, true})
		next := p.inherits
		if next == "" {
			if shippedFields(at) == nil {
				break
			}
			next = at
		}
		at = next
	}
	slices.Reverse(all)
	return all, nil
}

func (c *Config) unknownProfile(name string) error {
	names := c.ProfileNames()
	f := fault.New(fault.UnknownProfile, "", "unknown profile "+quote(name)+"; there are "+strings.Join(names, ", "))
	return f.WithHint(spec.SuggestNear(name, names))
}

// ProfileNames are those of the shipped profiles and the file's own.
func (c *Config) ProfileNames() []string {
	names := []string{}
	for _, p := range spec.Profiles() {
		names = append(names, p.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(c.profiles)) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// shippedFields are what a shipped profile sets, as a file would say it; nil
// when there is none of that name.
func shippedFields(name string) map[string]any {
	for _, p := range spec.Profiles() {
		if p.Name != name {
			continue
		}
		resources, isolation, fields := map[string]any{}, map[string]any{}, map[string]any{}
		put := func(m map[string]any, key string, n int64) {
			if n != 0 {
				m[key] = n
			}
		}
		put(fields, "timeout_ms", p.TimeoutMS)
		put(resources, "memory_bytes", p.MemoryBytes)
		put(resources, "max_output_bytes", p.MaxOutputBytes)
		put(resources, "max_pids", p.MaxPids)
		if p.Network {
			isolation["network"] = true
		}
		if p.Seccomp != "" {
			isolation["seccomp"] = p.Seccomp
		}
		if len(resources) > 0 {
			fields["resources"] = resources
		}
		if len(isolation) > 0 {
			fields["isolation"] = isolation
		}
		return fields
	}
	return nil
}

// Base is the request that a caller's document is decoded over: built-in
// defaults, the file's, the profile's, lowered to the caller's ceilings. Profile
// empty: none. An unknown one is E1004. The caller owns the result.
func (c *Config) Base(name string, uid uint32) (*spec.Request, error) {
	r := spec.Default()
	if c.defaults != nil {
		if err := overlay(r, c.defaults); err != nil {
			return nil, err
		}
	}
	if name != "" {
		layers, err := c.chain(name)
		if err != nil {
			return nil, err
		}
		for _, l := range layers {
			if err := overlay(r, l.fields); err != nil {
				return nil, fault.From(err, fault.ConfigFile)
			}
		}
	}
	ceilings := c.CeilingsFor(uid)
	ceilings.Lower(r)
	return r, nil
}

func quote(s string) string {
	const most = 64
	if len(s) > most {
		s = s[:most] + "..."
	}
	data, err := json.Marshal(s)
	if err != nil {
		return "of that name"
	}
	return string(data)
}
