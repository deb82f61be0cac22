package main

import (
	_ "embed"
	"fmt"
	"strings"

	"github.com/capsule-run/capsule/supervisor/config"
)

//go:embed configuration.md
var configurationIntro string

// configuration makes the page of all keys.
func configuration() []byte {
	var b strings.Builder
	b.WriteString("# Configuration\n\n" + generated + configurationIntro)
	section := ""
	for _, r := range config.References() {
		i := strings.LastIndexByte(r.Name, '.')
		if r.Default == "inherited" && strings.HasPrefix(r.Name, "profiles.NAME.") {
			if section == "profiles.NAME" {
				section = "" // the rest is told in one line
				b.WriteString("| `profiles.NAME.*` | | inherited | | Each key of `[defaults]`, also below `[profiles.NAME.resources]` and `[profiles.NAME.isolation]`. |\n")
			}
			continue
		}
		if r.Name[:i] != section {
			section = r.Name[:i]
			fmt.Fprintf(&b, "\n### [%s]\n\n| key | type | default | accepted | meaning |\n|---|---|---|---|---|\n", section)
		}
		name := "`" + r.Name + "`"
		if r.Expands {
			name += " $"
		}
		def := "`" + r.Default + "`"
		if r.Default == "inherited" {
			def = r.Default
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", name, r.Type, def, cell(r.Range), cell(r.Meaning))
	}
	return []byte(b.String())
}
