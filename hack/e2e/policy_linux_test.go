package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/capsule-run/capsule/spec"
)

// ruled gives every call of a test this configuration.
func (c *capsule) ruled(text string) {
	c.Helper()
	path := c.write(c.directory(), "capsule.toml", text)
	c.env = append(c.env, "CAPSULE_CONFIG="+path)
}

// refused wants a response that names the rule.
func (c *capsule) refused(what string, o outcome, code, rule string) {
	c.Helper()
	if o.Response == nil || o.Error == nil || o.Error.Code != code || o.Termination.Reason != spec.ReasonRefused || !strings.Contains(o.Error.Message, rule) {
		c.Errorf("%s: %s%s; want %s of %s", what, o.out, o.stderr, code, rule)
	}
}

// TestBlockedCommandCannotBeReached tries every way to a blocked program that
// does not bring a copy along.
func TestBlockedCommandCannotBeReached(t *testing.T) {
	c := begin(t)
	c.ruled("[security]\nblocked_commands = [\"cat\"]\nblocked_patterns = ['rm\\s+-rf']\n[profiles.loose.isolation]\nnetwork = true\n")
	dir := c.directory()
	link := filepath.Join(dir, "dog")
	if err := os.Symlink("/usr/bin/cat", link); err != nil {
		t.Fatal(err)
	}
	for what, request := range map[string]object{
		"by name":       {"command": []string{"cat", "/etc/passwd"}},
		"absolute":      {"command": []string{"/bin/cat", "/etc/passwd"}},
		"not clean":     {"command": []string{"//usr/./bin/../bin/cat"}},
		"relative path": {"command": []string{"../usr/bin/cat"}},
		"relative in the working directory": {"command": []string{"./cat"},
			"isolation": object{"working_directory": "/usr/bin"}},
		"through PATH":         {"command": []string{"cat"}, "environment": object{"PATH": "/nowhere:/usr/bin"}},
		"symbolic link":        {"command": []string{link}, "isolation": object{"readonly_paths": []string{dir}}},
		"bind of another name": {"command": []string{"/workspace/dog"}, "isolation": object{"bind_mounts": []object{{"source": "/usr/bin/cat", "destination": "/workspace/dog"}}}},
		"link of the kernel":   {"command": []string{"/proc/self/root/usr/bin/cat"}},
	} {
		c.refused(what, c.run(request), "E5001", "security.blocked_commands")
	}
	c.refused("pattern", c.run(object{"command": []string{"sh", "-c", "rm  -rf /workspace/x"}}), "E5001", "security.blocked_patterns")
	c.refused("another profile", c.run(object{"command": []string{"cat"}}, "--profile", "loose"), "E5001", "security.blocked_commands")
	c.refused("with flags", c.runFlags("--", "cat", "/etc/passwd"), "E5001", "security.blocked_commands")
	// A copy is one of nothing: what is hidden cannot be read either.
	for what, script := range map[string]string{
		"shell":          `cat /etc/passwd`,
		"shell, by path": `/usr/bin/cat /etc/passwd`,
		"exec":           `exec /bin/cat /etc/passwd`,
		"env":            `env cat /etc/passwd`,
		"link inside":    `ln -s /usr/bin/cat /workspace/dog && /workspace/dog /etc/passwd`,
		"copy":           `cp /usr/bin/cat /workspace/dog && chmod +x /workspace/dog && /workspace/dog /etc/passwd`,
	} {
		o := c.run(object{"command": []string{"sh", "-c", script}})
		if o.Response == nil || o.Stdout == nil || strings.Contains(*o.Stdout, "root") || what != "copy" && (o.ExitCode == nil || *o.ExitCode == 0) {
			t.Errorf("%s: %s%s", what, o.out, o.stderr)
		}
	}
	if o := c.run(object{"command": []string{"head", "-c", "4", "/etc/passwd"}}); o.ExitCode == nil || *o.ExitCode != 0 {
		t.Errorf("a command that nothing blocks: %s", o.out)
	}
}

// TestAllowedNameIsTheHostsProgram: a name on the list allows the program of the
// system, not whatever the request calls so.
func TestAllowedNameIsTheHostsProgram(t *testing.T) {
	c := begin(t)
	c.ruled("[security]\nallowed_commands = [\"echo\", \"/usr/bin/true\"]\nallowed_patterns = ['head -c [0-9]+ /etc/passwd']\n")
	dir := c.directory()
	own := c.write(dir, "echo", "#!/bin/sh\nid\n")
	if err := os.Chmod(own, 0o755); err != nil {
		t.Fatal(err)
	}
	shown := func(more object) object {
		iso := object{"readonly_paths": []string{dir}}
		for k, v := range more {
			iso[k] = v
		}
		return iso
	}
	const rule = "security.allowed_commands"
	for what, request := range map[string]object{
		"not on the list":                 {"command": []string{"id"}},
		"shell":                           {"command": []string{"sh", "-c", "echo x"}},
		"a file in the working directory": {"command": []string{"./echo"}, "isolation": shown(object{"working_directory": dir})},
		"a file of the caller's":          {"command": []string{own}, "isolation": shown(nil)},
		"PATH order":                      {"command": []string{"echo"}, "environment": object{"PATH": dir + ":/usr/bin"}, "isolation": shown(nil)},
		"an empty part of PATH":           {"command": []string{"echo"}, "environment": object{"PATH": ":/usr/bin"}, "isolation": shown(object{"working_directory": dir})},
		"a bind over the program":         {"command": []string{"/usr/bin/true"}, "isolation": object{"bind_mounts": []object{{"source": own, "destination": "/usr/bin/true"}}}},
		"more than the pattern":           {"command": []string{"head", "-c", "1", "/etc/passwd", "/etc/group"}},
	} {
		c.refused(what, c.run(request), "E5001", rule)
	}
	for _, command := range [][]string{{"echo", "x"}, {"/usr/bin/true"}, {"true"}, {"head", "-c", "4", "/etc/passwd"}} {
		if o := c.run(object{"command": command}); o.ExitCode == nil || *o.ExitCode != 0 {
			t.Errorf("%v: %s%s", command, o.out, o.stderr)
		}
	}
}

// TestNothingAllowed: an empty list is not one that is left out.
func TestNothingAllowed(t *testing.T) {
	c := begin(t)
	c.ruled("[security]\nallowed_commands = []\n")
	c.refused("anything", c.run(object{"command": []string{"true"}}), "E5001", "security.allowed_commands")
}

// TestPathPolicy: what a path leads to is what counts.
func TestPathPolicy(t *testing.T) {
	c := begin(t)
	dir := c.directory()
	for _, name := range []string{"open/below", "secret", "elsewhere"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"open/to-secret": "secret", "open/to-elsewhere": "elsewhere"} {
		if err := os.Symlink(filepath.Join(dir, target), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	c.ruled("[security.paths]\nreadable = [\"" + dir + "/open\", \"" + dir + "/secret\"]\nwritable = []\nrootfs = []\nrefused = [\"" + dir + "/secret\"]\n")
	read := func(path string) object {
		return object{"command": []string{"true"}, "isolation": object{"readonly_paths": []string{dir + path}}}
	}
	for path, rule := range map[string]string{
		"/elsewhere": "paths.readable", "": "paths.refused", "/secret": "paths.refused",
		"/open/to-secret": "paths.refused", "/open/to-elsewhere": "paths.readable",
	} {
		c.refused("read "+path, c.run(read(path)), "E5002", rule)
	}
	c.refused("write", c.run(object{"command": []string{"true"}, "isolation": object{"writable_paths": []string{dir + "/open"}}}), "E5002", "paths.writable")
	c.refused("rootfs", c.run(object{"command": []string{"true"}, "isolation": object{"rootfs": dir + "/open"}}), "E5002", "paths.rootfs")
	if o := c.run(read("/open/below")); o.ExitCode == nil || *o.ExitCode != 0 {
		t.Errorf("an allowed path: %s%s", o.out, o.stderr)
	}
}

// TestWallsAndCeilings: what a request leaves out, and how much it asks for.
func TestWallsAndCeilings(t *testing.T) {
	c := begin(t)
	c.ruled("[security]\nallow_network = false\nallow_custom_seccomp = false\n[limits.max]\nmemory_bytes = 67108864\ncpu_time_ms = 5000\n")
	request := func(iso object) object { return object{"command": []string{"true"}, "isolation": iso} }
	c.refused("network", c.run(request(object{"network": true})), "E5004", "security.allow_network")
	c.refused("network of a profile", c.run(object{"command": []string{"true"}}, "--profile", "development"), "E5004", "security.allow_network")
	c.refused("no filter", c.run(request(object{"seccomp": "unconfined"})), "E5004", "security.allow_unconfined")
	c.refused("own filter", c.run(request(object{"seccomp": object{"defaultAction": "SCMP_ACT_ALLOW"}})), "E5004", "security.allow_custom_seccomp")
	c.refused("memory", c.run(object{"command": []string{"true"}, "resources": object{"memory_bytes": 67108865}}), "E1003", "limits.max.memory_bytes")
}

// TestDefaultsAreLowered: what nobody asked for is brought down to the ceiling.
func TestDefaultsAreLowered(t *testing.T) {
	c := begin(t)
	c.needLimits(spec.LimitMemory) // a ceiling that cannot be enforced is refused
	c.ruled("[limits.max]\nmemory_bytes = 67108864\n")
	o := c.run(object{"command": []string{"true"}})
	if o.ExitCode == nil || *o.ExitCode != 0 || o.Enforcement == nil || len(o.Enforcement.PolicyHash) != 64 {
		t.Errorf("defaults above the ceiling: %s%s", o.out, o.stderr)
	}
}

// TestUnconfinedWhereAllowed: the one wall that policy may take away.
func TestUnconfinedWhereAllowed(t *testing.T) {
	c := begin(t)
	c.ruled("[security]\nallow_unconfined = true\n")
	o := c.run(object{"command": []string{"grep", "^Seccomp:", "/proc/self/status"}, "isolation": object{"seccomp": "unconfined"}})
	if o.Stdout == nil || *o.Stdout != "Seccomp:\t0\n" || o.Enforcement.Walls[spec.WallSeccomp] == spec.Enforced {
		t.Errorf("%s%s", o.out, o.stderr)
	}
}

// TestWorkingDirectoryConfiguresNothing: a workspace does not choose its policy.
func TestWorkingDirectoryConfiguresNothing(t *testing.T) {
	c := begin(t)
	dir := c.directory()
	for _, name := range []string{"capsule.toml", "config.toml", ".capsule.toml"} {
		c.write(dir, name, "[security]\nallow_unconfined = true\n[defaults]\ntimeout_ms = 1\n")
	}
	cmd := c.command("-o", "json", "--seccomp", "unconfined", "--", "true")
	cmd.Dir = dir
	o := c.finish(cmd)
	if !strings.Contains(o.out, "E5004") {
		t.Errorf("%s%s", o.out, o.stderr)
	}
}

// TestAuditLogWithoutADaemon has one line for each decision, and refuses what it
// cannot write down.
func TestAuditLogWithoutADaemon(t *testing.T) {
	c := begin(t)
	dir := c.directory()
	path := filepath.Join(dir, "audit")
	c.ruled("[security]\naudit_log = \"" + path + "\"\nblocked_commands = [\"cat\"]\n")
	c.run(object{"command": []string{"true"}})
	c.run(object{"command": []string{"cat"}})
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], `"decision":"admitted"`) || !strings.Contains(lines[1], `"rule":"security.blocked_commands"`) || !strings.Contains(lines[1], `"policy_hash":"`) {
		t.Errorf("%s", text)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	o := c.run(object{"command": []string{"true"}})
	if o.Error == nil || o.Error.Code != "E6001" {
		t.Errorf("%s%s", o.out, o.stderr)
	}
}
