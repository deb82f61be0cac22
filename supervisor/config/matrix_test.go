package config

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// samples are three values for each key of a request, as JSON, each right and
// none of them the default: of the file, the profile and the request.
var samples = map[string][3]string{
	"environment":                         {`{"A":"1"}`, `{"B":"2"}`, `{"C":"3"}`},
	"timeout_ms":                          {"101", "102", "103"},
	"grace_ms":                            {"101", "102", "103"},
	"labels":                              {`{"a":"1"}`, `{"b":"2"}`, `{"c":"3"}`},
	"resources.memory_bytes":              {"2000001", "2000002", "2000003"},
	"resources.cpu_shares":                {"11", "12", "13"},
	"resources.cpu_quota":                 {"0.25", "0.5", "0.75"},
	"resources.cpu_time_ms":               {"11", "12", "13"},
	"resources.max_output_bytes":          {"11", "12", "13"},
	"resources.output_policy":             {`"tail"`, `"kill"`, `"tail"`},
	"resources.max_pids":                  {"11", "12", "13"},
	"resources.disk_bytes":                {"1000001", "1000002", "1000003"},
	"resources.io.read_bytes_per_second":  {"11", "12", "13"},
	"resources.io.write_bytes_per_second": {"11", "12", "13"},
	"resources.io.read_ops_per_second":    {"11", "12", "13"},
	"resources.io.write_ops_per_second":   {"11", "12", "13"},
	"resources.rlimits":                   {`{"nofile":{"soft":11,"hard":11}}`, `{"nofile":{"soft":12,"hard":12}}`, `{"nofile":{"soft":13,"hard":13}}`},
	"isolation.backend":                   {`"process"`, `"namespace"`, `"process"`},
	"isolation.network":                   {"true", "false", "true"},
	"isolation.readonly_paths":            {`["/a"]`, `["/b"]`, `["/c"]`},
	"isolation.writable_paths":            {`["/a"]`, `["/b"]`, `["/c"]`},
	"isolation.bind_mounts":               {`[{"source":"/a","destination":"/x","readonly":true}]`, `[{"source":"/b","destination":"/x","readonly":false}]`, `[{"source":"/c","destination":"/x","readonly":true}]`},
	"isolation.working_directory":         {`"/a"`, `"/b"`, `"/c"`},
	"isolation.rootfs":                    {`"/a"`, `"/b"`, `"/c"`},
	"isolation.user":                      {`"11:1"`, `"12:1"`, `"13:1"`},
	"isolation.hostname":                  {`"a"`, `"b"`, `"c"`},
	"isolation.seccomp":                   {`"strict"`, `"network"`, `"default"`},
	"isolation.allow_degraded":            {`["memory"]`, `["pids"]`, `["disk"]`},
	"isolation.require":                   {`["memory"]`, `["pids"]`, `["disk"]`},
	"isolation.init":                      {"false", "true", "false"},
}

// nested writes one dotted key as a document.
func nested(dotted, value string) string {
	parts := strings.Split(dotted, ".")
	for i := len(parts) - 1; i >= 0; i-- {
		value = `{"` + parts[i] + `":` + value + `}`
	}
	return value
}

// valueIn is the value of a dotted key in a request, as JSON.
func valueIn(t *testing.T, r *spec.Request, dotted string) string {
	t.Helper()
	for _, l := range leaves(r) {
		if l.Key == dotted {
			return string(l.Value)
		}
	}
	t.Fatalf("%s is no key of a request", dotted)
	return ""
}

func same(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y any
	if err := errors.Join(json.Unmarshal([]byte(a), &x), json.Unmarshal([]byte(b), &y)); err != nil {
		t.Fatal(err)
	}
	p, _ := json.Marshal(x) // what was decoded can be encoded
	q, _ := json.Marshal(y)
	return string(p) == string(q)
}

// TestPrecedence: every key at every level. Built-in, file, profile and request,
// each wins over those before it, alone and together.
func TestPrecedence(t *testing.T) {
	for _, ref := range requestKeys() {
		values, ok := samples[ref.Name]
		if !ok {
			t.Errorf("%s has no samples: add them", ref.Name)
			continue
		}
		builtIn := valueIn(t, spec.Default(), ref.Name)
		for levels := range 8 {
			file := map[string]json.RawMessage{}
			want, profile := builtIn, ""
			if levels&1 != 0 {
				file["defaults"], want = json.RawMessage(nested(ref.Name, values[0])), values[0]
			}
			if levels&2 != 0 {
				file["profiles"], want, profile = json.RawMessage(`{"p":`+nested(ref.Name, values[1])+`}`), values[1], "p"
			}
			text, err := json.Marshal(file)
			if err != nil {
				t.Fatal(err)
			}
			c, err := Load([]string{write(t, "c.json", string(text))}, noEnv)
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			got, err := c.Base(profile, 0)
			if err != nil {
				t.Fatal(err)
			}
			if levels&4 != 0 {
				want = values[2]
				if err := got.Overlay([]byte(nested(ref.Name, want))); err != nil {
					t.Fatal(err)
				}
			}
			if have := valueIn(t, got, ref.Name); !same(t, have, want) {
				// A limit that is spelled out is one that is asked for besides.
				t.Errorf("%s at levels %03b: %s, want %s", ref.Name, levels, have, want)
			}
		}
	}
	if len(samples) != len(requestKeys()) {
		t.Errorf("%d samples for %d keys", len(samples), len(requestKeys()))
	}
}

// TestStrictness: every key of a request, misspelt or of a wrong type, is refused by
// name at every level that may have it, and a misspelt one with the right name.
func TestStrictness(t *testing.T) {
	for _, ref := range requestKeys() {
		last := ref.Name[strings.LastIndexByte(ref.Name, '.')+1:]
		for level, prefix := range map[string]string{"file": "defaults.", "profile": "profiles.p."} {
			for dotted, value := range map[string]string{ref.Name + "x": "1", ref.Name: `[[[1]]]`} {
				_, err := Load([]string{write(t, "c.json", nested(prefix+dotted, value))}, noEnv)
				var list fault.List
				if !errors.As(err, &list) || list[0].Code != fault.ConfigFile || !strings.HasPrefix(list[0].Field, "/"+strings.ReplaceAll(prefix+dotted, ".", "/")) {
					t.Errorf("%s as %s of a %s: %v", dotted, value, level, err)
				} else if dotted != ref.Name && !strings.Contains(list[0].Hint, last) {
					t.Errorf("%s of a %s: no suggestion: %q", dotted, level, list[0].Hint)
				}
			}
		}
		for dotted, value := range map[string]string{ref.Name + "x": "1", ref.Name: `[[[1]]]`} {
			request := `{"command":["x"],` + nested(dotted, value)[1:]
			_, err := spec.DecodeOver(spec.Default(), []byte(request))
			var list fault.List
			if !errors.As(err, &list) || !strings.HasPrefix(list[0].Field, "/"+strings.ReplaceAll(dotted, ".", "/")) {
				t.Errorf("%s as %s of a request: %v", dotted, value, err)
			} else if dotted != ref.Name && (list[0].Code != fault.UnknownField || !strings.Contains(list[0].Hint, last)) {
				t.Errorf("%s of a request: %v, no suggestion: %q", dotted, list[0], list[0].Hint)
			}
		}
	}
}

// TestEveryKeyIsSetAndStrict: each key besides those of requests takes another
// value than its default, refuses one of a wrong type, and a misspelt one is
// named with a suggestion.
func TestEveryKeyIsSetAndStrict(t *testing.T) {
	all := keys()
	all = append(all, ruleKeys("security.users.7", func(c *Config) *Rules { return c.RulesFor(7) }, true)...)
	all = append(all, ceilingKeys("limits.users.7", func(c *Config) *Ceilings { return c.Limits.Users[7] })...)
	for i := range all {
		k := &all[i]
		value := ""
		switch k.at(withUser()).(type) {
		case *bool:
			value = map[bool]string{true: "false", false: "true"}[k.def == true]
		case *int64:
			value = "50"
			if k.min > 50 {
				value = "777"
			}
			if k.unlessZero > 50 {
				value = strconv.FormatInt(k.unlessZero, 10)
			}
		case *float64:
			value = "1.5"
		case *string:
			value = `"/some/where"`
			if k.enum != nil {
				value = `"` + k.enum[len(k.enum)-1] + `"`
			}
		case *[]string:
			value = `["/some/where"]`
		}
		extra := ""
		if strings.HasSuffix(k.Name, ".allowed_patterns") {
			extra = "\n" + strings.TrimSuffix(k.Name, "patterns") + "commands = []"
		}
		c, err := Load([]string{write(t, "c.toml", k.Name+" = "+value+extra+"\n")}, noEnv)
		if err != nil {
			t.Errorf("%s = %s: %v", k.Name, value, err)
			continue
		}
		data, err := json.Marshal(k.at(c))
		if err != nil || string(data) != value || c.origin(k.Name) == builtIn {
			t.Errorf("%s: %s of %s, want %s of the file", k.Name, data, c.origin(k.Name), value)
		}
		wrong := map[string]string{k.Name + " = 2020-01-01": "must be", k.Name + "x = 1": "unknown key"}
		if k.unlessZero > 1 {
			wrong[k.Name+" = 1"] = "1 is not 0 or at least "
		}
		for bad, want := range wrong {
			_, err := Load([]string{write(t, "c.toml", bad+"\n")}, noEnv)
			var list fault.List
			if !errors.As(err, &list) || list[0].Code != fault.ConfigFile || !strings.Contains(list[0].Message(), want) || list[0].Path == "" {
				t.Errorf("%s: %v", bad, err)
			} else if want == "unknown key" && !strings.Contains(list[0].Hint, k.Name[strings.LastIndexByte(k.Name, '.')+1:]) {
				t.Errorf("%s: no suggestion: %q", bad, list[0].Hint)
			}
		}
	}
}

// TestKeyOfAnotherSection: a key in the wrong section is pointed to where it is.
func TestKeyOfAnotherSection(t *testing.T) {
	_, err := Load([]string{write(t, "c.toml", "[limits]\nmax_queued = 2\n")}, noEnv)
	var list fault.List
	if !errors.As(err, &list) || len(list) != 1 || !strings.Contains(list[0].Hint, ".max_queued`") {
		t.Errorf("%v", err)
	}
}

// withUser has what the keys of single users point into.
func withUser() *Config {
	c := Default()
	c.Limits.Users = map[uint32]*Ceilings{7: {}}
	return c
}

// TestReferencesAreTheKeys: what the documentation lists is what a file may
// have, and each of these is listed.
func TestReferencesAreTheKeys(t *testing.T) {
	documented := map[string]bool{}
	for _, r := range References() {
		if documented[r.Name] {
			t.Errorf("%s is documented twice", r.Name)
		}
		documented[r.Name] = true
		if r.Meaning == "" || r.Default == "" || r.Type == "" {
			t.Errorf("%s: %+v", r.Name, r)
		}
	}
	shown, err := Default().Show("", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range shown {
		if !documented[v.Key] {
			t.Errorf("%s exists and is not documented", v.Key)
		}
		delete(documented, v.Key)
	}
	for name := range documented {
		if !strings.Contains(name, "NAME") && !strings.Contains(name, "UID") {
			t.Errorf("%s is documented and does not exist", name)
		}
	}
}

// TestUnits: a size or a time with a unit, as flags take it, is answered with the number.
func TestUnits(t *testing.T) {
	for line, want := range map[string]string{
		`defaults.resources.memory_bytes = "64M"`: "Write 67108864, in bytes",
		`limits.max.disk_bytes = "1GiB"`:          "Write 1073741824, in bytes",
		`defaults.timeout_ms = "5s"`:              "Write 5000, in milliseconds",
		`limits.max.max_pids = "7"`:               "",
		`limits.max.memory_bytes = "much"`:        "",
	} {
		_, err := Load([]string{write(t, "c.toml", line+"\n")}, noEnv)
		var list fault.List
		if !errors.As(err, &list) || len(list) != 1 || !strings.HasPrefix(list[0].Hint, want) || want == "" && strings.Contains(list[0].Hint, "Write ") {
			t.Errorf("%s: %v, hint %q", line, err, list[0].Hint)
		}
	}
}

func TestCeilings(t *testing.T) {
	for _, l := range append(ceilings(), ceiling{name: quotaName}) {
		field := "resources." + l.name
		if strings.HasPrefix(l.name, "timeout") || strings.HasPrefix(l.name, "grace") {
			field = l.name
		}
		least := strconv.FormatInt(max(spec.Least(l.pointer), 2), 10)
		c, err := Load([]string{write(t, "c.json", `{"limits":`+nested("max."+l.name, least)+`}`)}, noEnv)
		if err != nil {
			t.Fatal(err)
		}
		r, err := c.Base("", 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := valueIn(t, r, field); got != least {
			t.Errorf("%s: the default stays at %s", l.name, got)
		}
		if found := c.Limits.Max.Exceeded(r, "limits.max"); found != nil {
			t.Errorf("%s: what was lowered is above: %v", l.name, found)
		}
		raised := *spec.Default()
		if err := json.Unmarshal([]byte(nested(field, least+"1")), &raised); err != nil {
			t.Fatal(err)
		}
		found := c.Limits.Max.Exceeded(&raised, "limits.max")
		if len(found) != 1 || found[0].Code != fault.OutOfRange || found[0].Details["rule"] != "limits.max."+l.name {
			t.Errorf("%s: %v", l.name, found)
		}
	}
}

func TestProfiles(t *testing.T) {
	c, err := Load([]string{write(t, "c.toml", `
[profiles.ai-agent]
timeout_ms = 7
[profiles.mine]
inherits = "ai-agent"
description = "mine"
[profiles.mine.resources]
max_pids = 9
`)}, noEnv)
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Base("mine", 0)
	if err != nil || r.TimeoutMS != 7 || r.Resources.MaxPids != 9 || r.Resources.MemoryBytes != 512<<20 {
		t.Errorf("%+v, %v", r, err)
	}
	_, err = c.Base("mime", 0)
	if f := fault.From(err, ""); err == nil || f.Code != fault.UnknownProfile || !strings.Contains(f.Hint, "mine") {
		t.Errorf("an unknown profile: %v", err)
	}
	for _, bad := range []string{
		"[profiles.a]\ninherits = \"b\"\n[profiles.b]\ninherits = \"a\"\n",
		"[profiles.a]\ninherits = \"a\"\n",
		"[profiles.a]\ninherits = \"nobody\"\n",
		"[profiles.a]\ncommand = [\"x\"]\n",
		"[profiles.a]\ntimeout_ms = 0\n",
		"[profiles.'a b']\n",
	} {
		if _, err := Load([]string{write(t, "c.toml", bad)}, noEnv); err == nil || fault.From(err, "").Code != fault.ConfigFile {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestSubstitution(t *testing.T) {
	env := func(name string) (string, bool) { return "/srv/x", name == "WHERE" }
	c, err := Load([]string{write(t, "c.toml", `
[security]
audit_log = "${WHERE}/${NOBODY:audit}.log"
blocked_patterns = ['\$\{WHERE\}', '${WHERE}x']
[defaults.environment]
A = "${WHERE}"
`)}, env)
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Base("", 0)
	if err != nil || c.Security.AuditLog != "/srv/x/audit.log" || c.Security.BlockedPatterns[1] != "${WHERE}x" || r.Environment["A"] != "${WHERE}" {
		t.Errorf("%+v, %v", c.Security, err)
	}
	for _, bad := range []string{"${NOBODY}", "${WHERE", "${}", "${A B:x}"} {
		if _, err := Load([]string{write(t, "c.toml", "state.directory = \""+bad+"\"\n")}, env); err == nil {
			t.Errorf("%s was replaced", bad)
		}
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	for _, sub := range []string{"xdg/capsule", "home/.config/capsule", "etc/conf.d"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	put := func(name string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	xdg, home := put("xdg/capsule/config.toml", 0o600), put("home/.config/capsule/config.toml", 0o600)
	env := map[string]string{}
	look := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	wants := func(given string, want ...string) {
		t.Helper()
		if got, err := Find(given, look); err != nil || !slices.Equal(got, want) {
			t.Errorf("%v, %v; want %v", got, err, want)
		}
	}
	env["HOME"] = dir + "/home"
	wants("", home)
	env["XDG_CONFIG_HOME"] = dir + "/xdg"
	wants("", xdg)
	env[VariableFile] = "/named/by/variable"
	wants("", "/named/by/variable")
	wants("/given", "/given")
	delete(env, VariableFile)
	put("xdg/capsule/config.toml", 0o666)
	if _, err := Find("", look); err == nil || fault.From(err, "").Code != fault.ConfigFile {
		t.Errorf("a file that everybody can write: %v", err)
	}
	main, b, a := put("etc/config.toml", 0o600), put("etc/conf.d/20-b.toml", 0o600), put("etc/conf.d/10-a.json", 0o600)
	put("etc/conf.d/30-c.toml.bak", 0o600)
	put("etc/conf.d/.hidden.toml", 0o600)
	if got, err := host(dir + "/etc"); err != nil || !slices.Equal(got, []string{main, a, b}) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := host(dir + "/nothing"); err != nil || got != nil {
		t.Errorf("%v, %v", got, err)
	}
}

// TestLaterFilesWin, key by key, and Show tells from which a value came.
func TestLaterFilesWin(t *testing.T) {
	first := write(t, "1.toml", "[defaults]\ntimeout_ms = 1\ngrace_ms = 2\n[security]\nblocked_commands = [\"a\"]\n")
	second := write(t, "2.json", `{"defaults":{"timeout_ms":3},"security":{"users":{"7":{"allow_network":false}}}}`)
	c, err := Load([]string{first, second}, noEnv)
	if err != nil {
		t.Fatal(err)
	}
	shown, err := c.Show("high-security", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []Value{
		{"defaults.timeout_ms", json.RawMessage("10000"), "profile high-security (shipped)"},
		{"defaults.grace_ms", json.RawMessage("2"), first},
		{"security.blocked_commands", json.RawMessage(`["a"]`), first},
		{"security.users.7.blocked_commands", json.RawMessage(`["a"]`), first},
		{"security.users.7.allow_network", json.RawMessage("false"), second},
		{"daemon.max_queued", json.RawMessage("256"), builtIn},
	} {
		if !slices.ContainsFunc(shown, func(v Value) bool {
			return v.Key == want.Key && string(v.Value) == string(want.Value) && v.Origin == want.Origin
		}) {
			t.Errorf("%s is not shown as %s of %s", want.Key, want.Value, want.Origin)
		}
	}
	r, err := c.Base("", 0)
	if err != nil || r.TimeoutMS != 3 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestRefusedDocuments(t *testing.T) {
	for name, text := range map[string]string{
		"a.toml": "[security\n", "b.toml": "[security]\nallow_network = true\nallow_network = false\n", "c.json": `{"pool":{"size":0,"size":0}}`,
		"d.json": `[]`, "e.json": `{} {}`, "f.toml": "[nowhere]\n", "g.toml": "security = 1\n", "h.toml": "[pool]\nsize = 257\n",
		"i.toml": "[security.users.root]\n", "j.toml": "[security]\nallowed_patterns = [\"x\"]\n", "k.toml": "[security]\nblocked_patterns = [\"(\"]\n",
		"l.toml": "[security]\nblocked_commands = [\"a/b\"]\n", "m.toml": "[limits.max]\nmemory_bytes = -1\n", "n.json": `{"defaults":null}`,
	} {
		if _, err := Load([]string{write(t, name, text)}, noEnv); err == nil || fault.From(err, "").Code != fault.ConfigFile {
			t.Errorf("%s: %v", text, err)
		}
	}
}
