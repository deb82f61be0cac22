package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/spectest"
)

// TestMalformed sends every malformed document. Each gets one response with all
// its problems, and nothing is started: not even the state directory is made.
func TestMalformed(t *testing.T) {
	cases, err := spectest.Malformed()
	if err != nil {
		t.Fatal(err)
	}
	if len(cases) < 60 {
		t.Errorf("only %d cases", len(cases))
	}
	state := filepath.Join(scratch(), "never-made")
	for i, v := range cases {
		if slow() > 1 && i%8 != 0 {
			continue // the decoder is the same everywhere; one process each takes long
		}
		t.Run(v.Name, func(t *testing.T) {
			c := begin(t)
			c.env = []string{"CAPSULE_STATE=" + state}
			document, err := v.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			o := c.runDocument(bytes.NewReader(document))
			o.is(t, want{spec.StatusError, spec.ReasonRefused, v.Want[0].Code, -1, -1, 125})
			if have := problems(o); !slices.Equal(have, v.Want) {
				t.Errorf("\nhave %v\nwant %v", have, v.Want)
			}
			if _, err := os.Lstat(state); !os.IsNotExist(err) {
				t.Errorf("the state directory exists: %v", err)
			}
			if o.Timestamps.Created.IsZero() || o.Timestamps.Started != nil || o.Enforcement != nil || o.Stdout != nil {
				t.Errorf("the response tells of an execution: %s", o.out)
			}
		})
	}
}

// problems are the entries of error.details.problems.
func problems(o outcome) []spectest.Problem {
	list, _ := o.Error.Details["problems"].([]any)
	var all []spectest.Problem
	for _, entry := range list {
		p, _ := entry.(map[string]any)
		code, _ := p["code"].(string)
		pointer, _ := p["pointer"].(string)
		all = append(all, spectest.Problem{Code: code, Pointer: pointer})
	}
	return all
}
