package spec_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// TestHints holds the remedies of the mistakes that are made most often, each told once.
func TestHints(t *testing.T) {
	for _, c := range []struct{ document, hint string }{
		{``, "Nothing was given"},
		{" \n", "Nothing was given"},
		{`{'command':['true']}`, "double quotes"},
		{`{command:["true"]}`, "double quotes"},
		{`{"command":["true"],}`, fault.JSONSyntax.Info().Hint},
		{`{"command":["true"]`, fault.JSONSyntax.Info().Hint},
		{`{"command":"ls -l"}`, `["sh", "-c", "ls -l"]`},
		{`{"command":["a"],"environment":{"A":1}}`, `Write "1", in quotes.`},
		{`{"command":["a"],"environment":{"A":true}}`, `Write "true", in quotes.`},
		{`{"command":["a"],"isolation":{"network":"true"}}`, "Write true, without quotes."},
		{`{"command":["a"],"isolation":{"network":"yes"}}`, "schema request"},
		{`{"command":["a"],"timeout_ms":"5s"}`, "Write 5000, in milliseconds"},
		{`{"command":["a"],"timeout_ms":99999999999999999999}`, "schema request"},
		{`{"command":["a\u0000"]}`, "on stdin or in a file"},
		{`{"command":["a"],"resources":{"rlimits":{"nofil":3}}}`, "Did you mean `nofile`?"},
		{`{"command":["a"],"resources":{"output_policy":"keep"}}`, "schema request"},
	} {
		_, err := spec.DecodeRequest([]byte(c.document))
		var list fault.List
		if !errors.As(err, &list) || len(list) != 1 || !strings.Contains(list[0].Remedy(), c.hint) {
			t.Errorf("%s: want one problem with %q: %v", c.document, c.hint, err)
			if len(list) > 0 {
				t.Log(list[0].Remedy())
			}
		}
	}
}
