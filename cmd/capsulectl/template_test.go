package main

import (
	"strings"
	"testing"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

func TestFill(t *testing.T) {
	for _, c := range []struct{ template, document, want string }{
		{`{{.a}}`, `{"a":1}`, "1\n"},
		{`{{.a}}`, `{"a":12345678901234567}`, "12345678901234567\n"},
		{`{{json .a}}`, `{"a":{"b":[1,"x"]}}`, `{"b":[1,"x"]}` + "\n"},
		{`{{.a.b}}-{{len .l}}`, `{"a":{"b":"c"},"l":[1,2]}`, "c-2\n"},
		{`{{.a}}`, `[{"a":1},{"a":2}]`, "1\n2\n"},
		{`{{.a}}`, `[]`, ""},
	} {
		parsed, err := parseTemplate(c.template)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := fill(parsed, []byte(c.document)); err != nil || string(got) != c.want {
			t.Errorf("%s of %s: %q, %v; want %q", c.template, c.document, got, err, c.want)
		}
	}
	parsed, err := parseTemplate(`{{.absent}}`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fill(parsed, []byte(`{"a":1}`)); err == nil || !strings.Contains(err.Error(), "absent") {
		t.Errorf("a name that is not there: %v", err)
	}
}

// TestQuiet: what ran is told by its exit status alone; what could not run is told.
func TestQuiet(t *testing.T) {
	for _, c := range []struct {
		quiet bool
		r     *spec.Response
		said  string
		code  int
	}{
		{false, signalled(spec.StatusKilled, spec.ReasonOOM, 9), "killed: ", 137},
		{true, signalled(spec.StatusKilled, spec.ReasonOOM, 9), "", 137},
		{true, spec.Refused(newUUID(), fault.New(fault.Unsupported, "start", "no"), time.Now()), "E2008", spec.ExitRefused},
	} {
		b := newBench("")
		rep := &reporter{console: &b.console, inv: &invocation{quiet: c.quiet}, request: spec.Default()}
		if code := rep.respond(c.r); code != c.code || !strings.Contains(b.errOut.String(), c.said) || c.said == "" && b.errOut.String() != "" {
			t.Errorf("quiet %v: exit %d, %q; want %d, %q", c.quiet, code, b.errOut.String(), c.code, c.said)
		}
	}
	b := newBench("")
	if code := b.main([]string{"run", "-q", "-v", "--", "true"}); code != spec.ExitRefused || !strings.Contains(b.errOut.String(), "--verbose") {
		t.Errorf("both: exit %d, %q", code, b.errOut.String())
	}
}
