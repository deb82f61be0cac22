package main

import (
	"errors"
	"os"
	"testing"
)

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name   string
		failed error
		stdout string
		want   string
	}{
		{"all hold", nil, "TAP version 13\nok 1 - a\n  ---\n  {\"error\": \"expected\"}\n  ...\n1..1\n", resultPass},
		{"one does not", nil, "ok 1 - a\nnot ok 2 - b\n", resultFail},
		{"one does not yet", nil, "ok 1 - a\nnot ok 2 - b # TODO\n", resultPass},
		{"exit status", errors.New("exit status 1"), "ok 1 - a\n", resultFail},
		{"nothing asserted, all well", nil, "TAP version 13\n1..0\n", resultPass},
		{"nothing asserted, an error", nil, "TAP version 13\n  ---\n  {\n    \"error\": \"hooks\"\n  }\n  ...\n1..0\n", resultFail},
		{"silence", nil, "\n", resultPass},
		{"bail out", nil, "Bail out! no root\n", resultFail},
	} {
		if got, _ := judge(c.failed, c.stdout, ""); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// TestDocumentIsFresh: docs/conformance.md is made of the list.
func TestDocumentIsFresh(t *testing.T) {
	list, err := expectations()
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 58 {
		t.Errorf("%d programs, want 58", len(list))
	}
	text, err := os.ReadFile("../../docs/conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != document(list) {
		t.Error("docs/conformance.md is stale; make generate")
	}
}
