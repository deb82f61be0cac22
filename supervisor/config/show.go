package config

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/capsule-run/capsule/spec"
)

// builtIn is the origin of what no file and no profile says.
const builtIn = "built-in"

// Value is one key in force and where it came from.
type Value struct {
	// Key is dotted.
	Key string `json:"key"`
	// Value is JSON, which but for null is TOML too.
	Value json.RawMessage `json:"value"`
	// Origin is "built-in", a file, "profile NAME (shipped)", "profile NAME
	// (FILE)" or "ceiling KEY".
	Origin string `json:"origin"`
}

// Show lists every key in force for a caller with a profile; empty: none. An
// unknown profile is E1004.
func (c *Config) Show(name string, uid uint32) ([]Value, error) {
	all, err := c.showDefaults(name, uid)
	if err != nil {
		return nil, err
	}
	for _, k := range c.allKeys() {
		data, err := json.Marshal(k.at(c))
		if err != nil {
			return nil, err
		}
		all = append(all, Value{k.Name, data, c.origin(k.Name)})
	}
	return all, nil
}

// allKeys are keys with those of the single users that the files name.
func (c *Config) allKeys() []key {
	all := keys()
	for _, uid := range slices.Sorted(maps.Keys(c.Security.Users)) {
		rules := c.Security.Users[uid]
		all = append(all, ruleKeys("security.users."+strconv.FormatUint(uint64(uid), 10), func(*Config) *Rules { return rules }, true)...)
	}
	for _, uid := range slices.Sorted(maps.Keys(c.Limits.Users)) {
		own := c.Limits.Users[uid]
		all = append(all, ceilingKeys("limits.users."+strconv.FormatUint(uint64(uid), 10), func(*Config) *Ceilings { return own })...)
	}
	return all
}

// origin is where the value of a key came from. What a single user's section
// does not say it has from [security].
func (c *Config) origin(dotted string) string {
	if file := c.origins[dotted]; file != "" {
		return file
	}
	if rest, ok := strings.CutPrefix(dotted, "security.users."); ok {
		if _, name, _ := strings.Cut(rest, "."); name != "" && c.origins["security."+name] != "" {
			return c.origins["security."+name]
		}
	}
	return builtIn
}

// showDefaults lists what a request without fields of its own gets.
func (c *Config) showDefaults(name string, uid uint32) ([]Value, error) {
	base, err := c.Base(name, uid)
	if err != nil {
		return nil, err
	}
	var layers []layer
	if name != "" {
		if layers, err = c.chain(name); err != nil {
			return nil, err
		}
	}
	unlowered, err := c.unlowered(name)
	if err != nil {
		return nil, err
	}
	var all []Value
	before := leaves(unlowered)
	for i, leaf := range leaves(base) {
		origin := builtIn
		if file := c.origins["defaults."+leaf.Key]; file != "" {
			origin = file
		}
		for _, l := range layers {
			if !has(l.fields, leaf.Key) {
				continue
			}
			origin = "profile " + l.name + " (shipped)"
			if l.file {
				origin = "profile " + l.name + " (" + c.origins["profiles."+l.name+"."+leaf.Key] + ")"
			}
		}
		if string(leaf.Value) != string(before[i].Value) {
			origin = "ceiling " + c.ceilingName(strings.TrimPrefix(leaf.Key, "resources."), uid)
		}
		all = append(all, Value{"defaults." + leaf.Key, leaf.Value, origin})
	}
	return all, nil
}

// unlowered is Base without ceilings.
func (c *Config) unlowered(name string) (*spec.Request, error) {
	open := *c
	open.Limits = Limits{}
	return open.Base(name, 0)
}

// ceilingName is the key that holds the ceiling in force.
func (c *Config) ceilingName(field string, uid uint32) string {
	if own := c.Limits.Users[uid]; own != nil {
		for _, l := range ceilings() {
			if n := *l.most(own); l.name == field && n > 0 && n == *l.most(ptr(c.CeilingsFor(uid))) {
				return "limits.users." + strconv.FormatUint(uint64(uid), 10) + "." + field
			}
		}
		if field == quotaName && own.CPUQuota > 0 && own.CPUQuota == c.CeilingsFor(uid).CPUQuota {
			return "limits.users." + strconv.FormatUint(uint64(uid), 10) + "." + field
		}
	}
	return "limits.max." + field
}

func ptr[T any](v T) *T { return &v }

// leaf is a request field without fields of its own.
type leaf struct {
	Key   string
	Value json.RawMessage
}

// leaves are the fields of a request in the order of the documentation, but for
// those that no file has.
func leaves(r *spec.Request) []leaf {
	var tree map[string]any
	// Encode makes JSON that decodes; a number stays as it was written.
	d := json.NewDecoder(strings.NewReader(string(r.Encode())))
	d.UseNumber()
	if err := d.Decode(&tree); err != nil {
		return nil
	}
	var all []leaf
	for _, ref := range requestKeys() {
		data, err := json.Marshal(at(tree, ref.Name))
		if err == nil {
			all = append(all, leaf{ref.Name, data})
		}
	}
	return all
}

// at is the value of a dotted key; nil where there is none.
func at(tree map[string]any, dotted string) any {
	first, rest, deeper := strings.Cut(dotted, ".")
	if !deeper {
		return tree[first]
	}
	below, _ := tree[first].(map[string]any)
	return at(below, rest)
}

func has(tree map[string]any, dotted string) bool {
	first, rest, deeper := strings.Cut(dotted, ".")
	if !deeper {
		_, ok := tree[first]
		return ok
	}
	below, _ := tree[first].(map[string]any)
	return has(below, rest)
}

// requestKeys are the fields of requests that files may have, without those
// that only hold others.
func requestKeys() []spec.Reference {
	all, err := spec.References(spec.DocumentRequest)
	if err != nil {
		return nil // there is such a document
	}
	return slices.DeleteFunc(all, func(r spec.Reference) bool {
		holds := slices.ContainsFunc(all, func(o spec.Reference) bool { return strings.HasPrefix(o.Name, r.Name+".") })
		return holds || strings.Contains(r.Name, "[]") || r.Name == "command" || r.Name == "stdin"
	})
}
