package config

import (
	"encoding/json"
	"strings"

	"github.com/capsule-run/capsule/spec"
)

// Reference is the documentation of one key, as docs/configuration.md shows it.
// The texts are Markdown.
type Reference struct {
	// Name is dotted; UID stands for a number, NAME for a profile.
	Name string
	// Type is a word of TOML.
	Type string
	// Default is its default as JSON; null: none.
	Default string
	// Range says which values are accepted. May be empty.
	Range string
	// Expands: ${VAR:default} is replaced.
	Expands bool
	Meaning string
}

// References lists every key that a file may have, in the order of the documentation.
func References() []Reference {
	var all []Reference
	for _, r := range requestKeys() {
		all = append(all, Reference{Name: "defaults." + r.Name, Type: r.Type, Default: r.Default, Range: r.Range, Meaning: r.Meaning})
	}
	all = append(all,
		Reference{Name: "profiles.NAME." + keyInherits, Type: "string", Default: `""`, Range: "the name of a profile",
			Meaning: "The profile that this one changes. Empty: none, or for a name that is shipped, the shipped profile."},
		Reference{Name: "profiles.NAME." + keyDescription, Type: "string", Default: `""`, Meaning: "What the profile is for."},
	)
	for _, r := range requestKeys() {
		all = append(all, Reference{Name: "profiles.NAME." + r.Name, Type: r.Type, Default: "inherited", Range: r.Range, Meaning: "As `defaults." + r.Name + "`."})
	}
	c := Default()
	list := keys()
	list = append(list, ruleKeys("security.users.UID", func(c *Config) *Rules { return &c.Security.Rules }, true)...)
	list = append(list, ceilingKeys("limits.users.UID", func(c *Config) *Ceilings { return &c.Limits.Max })...)
	for i := range list {
		all = append(all, list[i].reference(c))
	}
	return all
}

func (k *key) reference(c *Config) Reference {
	r := Reference{Name: k.Name, Expands: k.expand, Meaning: k.doc, Range: k.accepts}
	value := k.at(c)
	switch value.(type) {
	case *bool:
		r.Type = "boolean"
	case *int64:
		r.Type = "integer"
		r.Range = k.bounds()
	case *float64:
		r.Type = "number"
	case *string:
		r.Type = "string"
	case *[]string:
		r.Type = "array of strings"
	}
	if k.enum != nil {
		r.Range = "`" + strings.Join(k.enum, "`, `") + "`"
	}
	data, err := json.Marshal(value)
	if err != nil {
		data = []byte("null")
	}
	r.Default = string(data)
	if rest, user := strings.CutPrefix(k.Name, "security.users.UID."); user && rest != "trusted" {
		r.Default, r.Meaning = "inherited", "As `security."+rest+"`, for this caller."
	}
	if rest, user := strings.CutPrefix(k.Name, "limits.users.UID."); user {
		r.Meaning = "As `limits.max." + rest + "`, for this caller; the lower of the two holds."
	}
	return r
}

// DefaultFile is a file with every key at its default, commented. Reading it
// changes nothing.
func DefaultFile() []byte {
	var b strings.Builder
	b.WriteString("# capsule's configuration: every key with its default. Take the # away from what you change.\n" +
		"# capsulectl config check FILE tells what is wrong with a file.\n")
	var order []string
	keysOf := map[string][]Reference{}
	for _, r := range References() {
		if strings.Contains(r.Name, "NAME") || strings.Contains(r.Name, "UID") {
			continue
		}
		section := r.Name[:strings.LastIndexByte(r.Name, '.')]
		if keysOf[section] == nil {
			order = append(order, section)
		}
		keysOf[section] = append(keysOf[section], r)
	}
	for _, section := range order {
		b.WriteString("\n#[" + section + "]\n") // an empty section is not the same as none
		for _, r := range keysOf[section] {
			comment(&b, r.Meaning)
			name := r.Name[len(section)+1:]
			if r.Default == "null" {
				b.WriteString("# " + name + " has no default.\n")
				continue
			}
			b.WriteString("#" + name + " = " + r.Default + "\n")
		}
	}
	b.WriteString("\n# [profiles.NAME] and below it the keys of [defaults]: a profile for --profile NAME.\n# Shipped are")
	for i, p := range spec.Profiles() {
		if i > 0 {
			b.WriteString(",")
		}
		b.WriteString(" " + p.Name)
	}
	b.WriteString(".\n# [security.users.UID] and [limits.users.UID]: the same for one caller.\n")
	return []byte(b.String())
}

// comment writes a text of Markdown as comments of at most 100 columns.
func comment(b *strings.Builder, text string) {
	line := "#"
	for _, word := range strings.Fields(plain(text)) {
		if len(line)+1+len(word) > 100 {
			b.WriteString(line + "\n")
			line = "#"
		}
		line += " " + word
	}
	b.WriteString(line + "\n")
}

// plain takes links out of Markdown.
func plain(text string) string {
	for {
		before, rest, found := strings.Cut(text, "](")
		if !found {
			return text
		}
		_, after, _ := strings.Cut(rest, ")")
		i := strings.LastIndexByte(before, '[')
		if i < 0 {
			return text
		}
		text = before[:i] + before[i+1:] + after
	}
}
