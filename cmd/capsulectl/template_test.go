package main

import (
	"strings"
	"testing"
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
