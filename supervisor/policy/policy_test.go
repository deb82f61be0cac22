package policy

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/config"
)

func load(t *testing.T, text string) *Policy {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load([]string{path}, os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func command(args ...string) *spec.Request {
	r := spec.Default()
	r.Command = args
	return r
}

// rulesOf are the rules that refuse.
func rulesOf(err error) []string {
	var all []string
	var list fault.List
	if errors.As(err, &list) {
		for _, f := range list {
			rule, _ := f.Details["rule"].(string)
			all = append(all, string(f.Code)+" "+rule)
		}
	}
	return all
}

func TestCommands(t *testing.T) {
	const blocked, patterns, allowed = "E5001 security.blocked_commands", "E5001 security.blocked_patterns", "E5001 security.allowed_commands"
	for _, c := range []struct {
		rules   string
		command []string
		want    []string
	}{
		{``, []string{"anything"}, nil},
		{`blocked_commands = ["nc"]`, []string{"nc"}, []string{blocked}},
		{`blocked_commands = ["nc"]`, []string{"/opt/x/nc"}, []string{blocked}},
		{`blocked_commands = ["nc"]`, []string{"./nc"}, []string{blocked}},
		{`blocked_commands = ["nc"]`, []string{"ncat"}, nil},
		{`blocked_commands = ["nc"]`, []string{"NC"}, nil},
		{`blocked_commands = ["/usr/bin/nc"]`, []string{"/usr/bin/../bin//nc"}, []string{blocked}},
		{`blocked_patterns = ['rm\s+-rf']`, []string{"sh", "-c", "x; rm  -rf /"}, []string{patterns}},
		{`blocked_patterns = ['rm -rf']`, []string{"rm", "-rf", "/"}, []string{patterns}},
		{`blocked_patterns = ['a.b']`, []string{"sh", "-c", "a\nb"}, []string{patterns}},
		{`blocked_commands = ["sh"]` + "\n" + `blocked_patterns = ['x']`, []string{"sh", "x"}, []string{blocked, patterns}},
		{`allowed_commands = []`, []string{"true"}, []string{allowed}},
		{`allowed_commands = ["true"]`, []string{"true"}, nil},
		{`allowed_commands = ["true"]`, []string{"false"}, []string{allowed}},
		{`allowed_commands = ["true"]` + "\n" + `blocked_commands = ["true"]`, []string{"true"}, []string{blocked}},
		{`allowed_commands = []` + "\n" + `allowed_patterns = ['echo [a-z]+']`, []string{"echo", "abc"}, nil},
		{`allowed_commands = []` + "\n" + `allowed_patterns = ['echo [a-z]+']`, []string{"echo", "abc", "1"}, []string{allowed}},
		{`allowed_commands = []` + "\n" + `allowed_patterns = ['a|b']`, []string{"a", "x"}, []string{allowed}},
	} {
		err := load(t, "[security]\n"+c.rules+"\n").Check(0, command(c.command...))
		if got := rulesOf(err); !slices.Equal(got, c.want) {
			t.Errorf("%s, %q: %v, want %v", c.rules, c.command, err, c.want)
		}
		if err != nil && !strings.Contains(err.Error(), "security.") {
			t.Errorf("%v does not name the rule", err)
		}
	}
}

func TestUsersAndCeilings(t *testing.T) {
	p := load(t, `
[security]
blocked_commands = ["nc"]
[security.users.1000]
blocked_commands = []
allow_network = false
max_concurrent_executions = 3
[limits.max]
timeout_ms = 60000
cpu_quota = 2
[limits.users.1000]
timeout_ms = 500
memory_bytes = 1048576000
`)
	if got := rulesOf(p.Check(1000, command("nc"))); !slices.Equal(got, []string{"E1003 limits.users.1000.timeout_ms"}) {
		t.Error(got)
	}
	if got := rulesOf(p.Check(1001, command("nc"))); !slices.Equal(got, []string{"E5001 security.blocked_commands"}) {
		t.Error(got)
	}
	r := command("true")
	r.TimeoutMS, r.Isolation.Network = 60001, true
	if got := rulesOf(p.Check(1000, r)); !slices.Equal(got, []string{"E5004 security.users.1000.allow_network", "E1003 limits.max.timeout_ms"}) {
		t.Error(got)
	}
	if p.MaxConcurrent(1000) != 3 || p.MaxConcurrent(0) != 0 || p.Trusted(1000) {
		t.Errorf("%d, %d", p.MaxConcurrent(1000), p.MaxConcurrent(0))
	}
	base, err := p.Base("", 1000)
	if err != nil || base.TimeoutMS != 500 {
		t.Errorf("%+v, %v", base, err)
	}
	plain := command("true")
	if err := p.Check(0, plain); err != nil || plain.Resources.CPUQuota == nil || *plain.Resources.CPUQuota != 2 {
		t.Errorf("what has no quota gets the ceiling: %v, %v", plain.Resources.CPUQuota, err)
	}
}

// TestHash changes with every rule and with nothing else.
func TestHash(t *testing.T) {
	seen := map[string]string{load(t, "").Hash(): ""}
	for _, text := range []string{
		"[security]\nblocked_commands = [\"a\"]\n", "[security]\nblocked_commands = [\"b\"]\n", "[security]\nallow_network = false\n",
		"[limits.max]\nmax_pids = 5\n", "[security.users.5]\n", "[security.paths]\nrefused = [\"/x\"]\n",
	} {
		hash := load(t, text).Hash()
		if other, twice := seen[hash]; twice {
			t.Errorf("%q and %q have one hash", text, other)
		}
		seen[hash] = text
	}
	for _, text := range []string{"[defaults]\ntimeout_ms = 5\n", "[security]\naudit_log = \"/x\"\n"} {
		if hash := load(t, text).Hash(); seen[hash] != "" || hash != load(t, "").Hash() {
			t.Errorf("%q changes the hash", text)
		}
	}
}

// TestPathsAreKnownByBothNames: a configured directory that is reached by a link
// is meant however a request names it.
func TestPathsAreKnownByBothNames(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/real", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir+"/real", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	s := load(t, "[security.paths]\nrefused = [\""+dir+"/link\"]\n").ForShim(0, []string{"true"})
	for _, want := range []string{dir + "/link", dir + "/real"} {
		if !slices.Contains(s.Refused, want) {
			t.Errorf("%v lacks %s", s.Refused, want)
		}
	}
}
