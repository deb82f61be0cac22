package terms

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/spec/fault"
)

const good = `{"id":"a","container":"command","timeout_ms":1000,"grace_ms":0,"max_output_bytes":10,"output_policy":"tail","network":false,"message":"/dev/termination-log"}`

func asked(text, container, kind string) *specs.Spec {
	return &specs.Spec{Annotations: map[string]string{Annotation: text, containerName: container, containerType: kind}}
}

func TestOf(t *testing.T) {
	got, err := Of(asked(good, "command", "container"))
	if err != nil || got == nil || got.ID != "a" || got.Timeout().Milliseconds() != 1000 {
		t.Fatalf("%+v, %v", got, err)
	}
	for name, s := range map[string]*specs.Spec{
		"no annotation": {}, "the sandbox": asked(good, "command", "sandbox"), "another container": asked(good, "sidecar", "container"),
	} {
		if got, err := Of(s); got != nil || err != nil {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// TestWrong checks that each wrong value is refused with its name: what is passed over
// would be a limit that does not hold.
func TestWrong(t *testing.T) {
	for _, c := range []struct {
		from, to, field string
		code            fault.Code
	}{
		{`"timeout_ms":1000`, `"timeout_ms":0`, "timeout_ms", fault.OutOfRange},
		{`"timeout_ms":1000`, `"timeout_ms":86400001`, "timeout_ms", fault.OutOfRange},
		{`"grace_ms":0`, `"grace_ms":-1`, "grace_ms", fault.OutOfRange},
		{`"max_output_bytes":10`, `"max_output_bytes":4194305`, "max_output_bytes", fault.OutOfRange},
		{`"tail"`, `"head"`, "output_policy", fault.InvalidValue},
		{`"id":"a"`, `"id":""`, "id", fault.MissingField},
		{`"message":"/dev/termination-log"`, `"message":""`, "message", fault.MissingField},
		{`"network"`, `"networks"`, "", fault.JSONSyntax},
		{good, good + good, "", fault.JSONSyntax},
		{good, `{`, "", fault.JSONSyntax},
		{`"id":"a"`, `"id":"` + strings.Repeat("a", 256<<10) + `"`, "", fault.OutOfRange},
	} {
		_, err := Of(asked(strings.Replace(good, c.from, c.to, 1), "command", "container"))
		var f *fault.Fault
		want := strings.TrimSuffix("annotations."+Annotation+"."+c.field, ".")
		if !errors.As(err, &f) || f.Code != c.code || f.Field != want || f.Remedy() == "" {
			t.Errorf("%.60s: %v, field %q, want %s in %s", c.to, err, f.Field, c.code, want)
		}
	}
}

// FuzzOf reads what the author of a pod may write.
func FuzzOf(f *testing.F) {
	f.Add(good)
	f.Add(`{"id":"a","container":"command","rlimits":[{"type":"RLIMIT_CORE","hard":1,"soft":0}],"stdin":"YQ=="}`)
	f.Fuzz(func(t *testing.T, text string) {
		got, err := Of(asked(text, "command", "container"))
		if err != nil || got == nil {
			return
		}
		again, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Of(asked(string(again), "command", "container")); err != nil {
			t.Errorf("%s became %s: %v", text, again, err)
		}
	})
}
