package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/client"
)

// configured writes the configuration of a house.
func configured(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func startOf(h *house, c *client.Client, request string) error {
	_, err := c.Start(h.ctx, &api.StartRequest{Request: []byte(request)})
	return err
}

// has tells whether an event of a type was told whose attributes contain text.
func has(h *house, c *client.Client, kind, text string) bool {
	found := false
	_ = c.Events(h.ctx, 0, false, func(e api.Event) error {
		all := ""
		for _, v := range e.Attributes {
			all += v + "\n"
		}
		found = found || e.Type == kind && strings.Contains(all, text)
		return nil
	})
	return found
}

// TestHangupReadsTheConfiguration: a good file replaces the policy, a bad one
// changes nothing and is told.
func TestHangupReadsTheConfiguration(t *testing.T) {
	h := newHouse(t)
	file, audit := filepath.Join(h.dir, "c.toml"), filepath.Join(h.dir, "audit")
	configured(t, file, "[security]\naudit_log = \""+audit+"\"\n")
	p := h.up("--config", file)
	c := h.dial()
	const command = `{"command":["/bin/echo","x"]}`
	if err := startOf(h, c, command); err != nil {
		t.Fatal(err)
	}
	reload := func(text string) {
		configured(t, file, text)
		p.signal(syscall.SIGHUP)
		p.notice("RELOADING=1")
		p.notice("READY=1")
	}
	reload("[security]\nblocked_commands = [\"echo\"]\naudit_log = \"" + audit + "\"\n")
	refused := func(when string) {
		t.Helper()
		err := startOf(h, c, command)
		if f := fault.From(err, ""); err == nil || f.Code != fault.CommandRefused || !strings.Contains(f.Message(), "security.blocked_commands") {
			t.Errorf("%s: %v", when, err)
		}
	}
	refused("after the reload")
	if !has(h, c, api.EventConfigured, "") {
		t.Error("no event tells of the new configuration")
	}
	reload("[security]\nblocked_command = []\n")
	refused("after a bad file")
	if !has(h, c, api.EventMisconfigured, "blocked_command") {
		t.Error("no event tells of the bad configuration")
	}
	found := false
	for _, l := range linesOf(t, audit) {
		found = found || l.Decision == decisionRefused && l.Rule == "security.blocked_commands" && len(l.PolicyHash) == 64 && len(l.Command) == 2
	}
	if !found {
		t.Errorf("the audit log does not tell of the refusal: %+v", linesOf(t, audit))
	}
}

// TestThresholds: what uses more than the configured part of a limit is told once.
func TestThresholds(t *testing.T) {
	h := newHouse(t)
	file := filepath.Join(h.dir, "c.toml")
	configured(t, file, "[monitoring]\ninterval_ms = 100\noutput_percent = 50\n")
	h.up("--config", file)
	c := h.dial()
	started, err := c.Start(h.ctx, &api.StartRequest{Request: []byte(`{"command":["/bin/sh","-c","echo 0123456789; read x"],"resources":{"max_output_bytes":20}}`), StreamStdin: true})
	if err != nil {
		t.Fatal(err)
	}
	h.eventually("the threshold is told", func() bool { return has(h, c, api.EventThreshold, "max_output_bytes") })
	h.feed(c, started.ID, "end\n")
	h.ended(c, started.ID, 0, "0123456789\n")
}

// TestConcurrencyOfOneCaller: one uid has no more than its share.
func TestConcurrencyOfOneCaller(t *testing.T) {
	h := newHouse(t)
	file := filepath.Join(h.dir, "c.toml")
	configured(t, file, "[security]\nmax_concurrent_executions = 1\n")
	h.up("--config", file)
	c := h.dial()
	id := h.execute(c, "read x", true)
	err := startOf(h, c, `{"command":["/bin/true"]}`)
	if f := fault.From(err, ""); err == nil || f.Code != fault.TooManyExecutions {
		t.Errorf("a second one: %v", err)
	}
	h.feed(c, id, "end\n")
	h.ended(c, id, 0, "")
	h.eventually("there is room again", func() bool { return startOf(h, c, `{"command":["/bin/true"]}`) == nil })
}

func TestAuditRotates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit")
	a := &audit{path: path, most: 200, keep: 2}
	if err := a.reopen(); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		a.write(&auditLine{Type: auditAdmission, ExecutionID: strings.Repeat("x", 30), Decision: decisionAdmitted})
	}
	if err := a.trouble(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{path: true, path + ".1": true, path + ".2": true, path + ".3": false} {
		info, err := os.Stat(name)
		if (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && (info.Size() > 200 || info.Mode().Perm() != 0o600) {
			t.Errorf("%s: %d bytes, %v", name, info.Size(), info.Mode())
		}
	}
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
}

// TestPolicyHoldsForClientsOfTheirOwn: a client that knows nothing of policy and
// checks nothing is refused what capsulectl would be, whatever way it names the
// program by. There is a request of the kind that is accepted, so that what
// refuses is the rule.
func TestPolicyHoldsForClientsOfTheirOwn(t *testing.T) {
	h := newHouse(t)
	shown := filepath.Join(h.dir, "shown")
	if err := os.Mkdir(shown, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/usr/bin/cat", filepath.Join(shown, "dog")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(shown, "echo"), []byte("#!/bin/sh\nid\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	// What lies where the daemon and the command work configures nothing.
	for _, name := range []string{"capsule.toml", "config.toml", ".capsule.toml"} {
		configured(t, filepath.Join(shown, name), "[security]\nblocked_commands = []\n")
	}
	file := filepath.Join(h.dir, "c.toml")
	configured(t, file, "[security]\nblocked_commands = [\"cat\"]\nblocked_patterns = ['rm\\s+-rf']\nallowed_commands = [\"cat\", \"rm\", \"sh\", \"echo\"]\n"+
		"[profiles.loose.isolation]\nnetwork = false\n")
	h.up("--config", file)
	c := h.dial()
	readable := `"isolation":{"readonly_paths":["` + shown + `"]}`
	for what, x := range map[string]struct{ request, profile, rule string }{
		"by name":              {`{"command":["cat","/etc/passwd"]}`, "", "security.blocked_commands"},
		"absolute":             {`{"command":["/usr/bin/cat"]}`, "", "security.blocked_commands"},
		"another profile":      {`{"command":["cat"]}`, "loose", "security.blocked_commands"},
		"a relative path":      {`{"command":["../usr/bin/cat"]}`, "", "security.blocked_commands"},
		"a symbolic link":      {`{"command":["` + shown + `/dog"],` + readable + `}`, "", "security."},
		"sh -c":                {`{"command":["sh","-c","rm  -rf /workspace/x"]}`, "", "security.blocked_patterns"},
		"the order of PATH":    {`{"command":["echo"],"environment":{"PATH":"` + shown + `:/usr/bin"},` + readable + `}`, "", "security.allowed_commands"},
		"a file of the caller": {`{"command":["./echo"],"isolation":{"readonly_paths":["` + shown + `"],"working_directory":"` + shown + `"}}`, "", "security.allowed_commands"},
		"not on the list":      {`{"command":["id"]}`, "", "security.allowed_commands"},
	} {
		code, message := "", ""
		started, err := c.Start(h.ctx, &api.StartRequest{Request: []byte(x.request), Profile: x.profile})
		if err != nil {
			f := fault.From(err, "")
			code, message = string(f.Code), f.Message()
		} else if r, err := c.Wait(h.ctx, started.ID); err != nil {
			t.Fatal(err)
		} else if r.Error != nil { // what a path leads to is known where it is opened
			code, message = r.Error.Code, r.Error.Message
		}
		if code != string(fault.CommandRefused) || !strings.Contains(message, x.rule) {
			t.Errorf("%s: %s %s, want E5001 of %s", what, code, message, x.rule)
		}
	}
	if err := startOf(h, c, `{"command":["echo","x"]}`); err != nil {
		t.Errorf("an allowed command: %v", err)
	}
	// What a blocked name hides from the command itself.
	const script = `{"command":["sh","-c","exec /usr/bin/cat /etc/passwd"]}`
	started, err := c.Start(h.ctx, &api.StartRequest{Request: []byte(script)})
	if err != nil {
		t.Fatal(err)
	}
	h.ended(c, started.ID, 126, "")
}
