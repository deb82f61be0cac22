package main

import (
	"strings"
	"testing"

	"github.com/capsule-run/capsule/spec"
)

// TestLogsThatAreNoLongerKept: it is said once, on stderr, and nothing is printed.
func TestLogsThatAreNoLongerKept(t *testing.T) {
	const gone = "capsule: note: the output is no longer kept; capsuled --history-output-bytes keeps more\n"
	const out, errs = "capsule: note: 14B of stdout were not kept and are missing here\n", "capsule: note: 4B of stderr were not kept and are missing here\n"
	for _, c := range []struct {
		args, out, err, calls string
	}{
		{"logs", "", out + errs + gone, "attach; inspect"},
		{"logs --tail 1 -f", "", out + errs + gone, "attach; inspect; attach"},
		{"logs --stderr", "", errs + gone, "attach; inspect"},
		{"logs -f -o json", "", out + errs + gone, "attach; inspect"},
		{"logs -o json", `{"execution_id":"` + idB + "\"}\n", out + errs + gone, "attach; inspect"},
	} {
		b := newBench("")
		populated(b)
		r, err := b.supervisor.find(idB)
		if err != nil {
			t.Fatal(err)
		}
		r.dropped, r.Response.Output = true, &spec.Output{}
		code := b.main(append(strings.Fields(c.args), idB, "--address", "/there"))
		if code != 0 || b.out.String() != c.out || b.supervisor.log() != c.calls {
			t.Errorf("%s: exit %d, stdout %q, calls %s", c.args, code, b.out.String(), b.supervisor.log())
		}
		if b.errOut.String() != c.err {
			t.Errorf("%s: stderr %q, want %q", c.args, b.errOut.String(), c.err)
		}
	}
	// Output that was never kept is another thing.
	b := newBench("")
	populated(b)
	r, err := b.supervisor.find(idB)
	if err != nil {
		t.Fatal(err)
	}
	r.dropped, r.Response.Output = true, &spec.Output{}
	r.Response.SetOutput(nil, nil)
	if code := b.main([]string{"logs", idB, "--address", "/there"}); code != 0 || b.errOut.String() != out+errs {
		t.Errorf("exit %d, stderr %q", code, b.errOut.String())
	}
}
