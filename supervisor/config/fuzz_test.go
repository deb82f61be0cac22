package config

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/capsule-run/capsule/spec/fault"
)

// FuzzLoad reads any file as a configuration, as TOML and as JSON. It is refused
// with faults, or it says something about every caller and profile.
func FuzzLoad(f *testing.F) {
	f.Add(string(DefaultFile()), false)
	f.Add("[security]\nallowed_commands = [\"python3\"]\n[security.users.1000]\n[profiles.a]\nextends = \"b\"\n[profiles.b]\nextends = \"a\"\n", false)
	f.Add(`{"defaults":{"resources":{"memory_bytes":"1 GiB"},"isolation":{"seccomp":"audit"}},"limits":{"max":{"timeout_ms":1}}}`, true)
	f.Add("[defaults]\ntimeout_ms = \"${HOME:5s}\"\n[defaults.environment]\nA = \"b\"\n", false)
	f.Fuzz(func(t *testing.T, text string, asJSON bool) {
		name := filepath.Join(t.TempDir(), "config.toml")
		if asJSON {
			name = filepath.Join(filepath.Dir(name), "config.json")
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Load([]string{name}, func(string) (string, bool) { return "", false })
		if err != nil {
			var one *fault.Fault
			var list fault.List
			if !errors.As(err, &one) && !errors.As(err, &list) {
				t.Fatalf("not a fault: %v", err)
			}
			return
		}
		if c.RulesFor(0) == nil || c.RulesFor(1000) == nil {
			t.Error("a caller has no rules")
		}
	})
}
