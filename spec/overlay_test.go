package spec

import (
	"errors"
	"testing"

	"github.com/capsule-run/capsule/spec/fault"
)

func TestOverlayReplacesWhatItNames(t *testing.T) {
	r := Default()
	if err := r.Overlay([]byte(`{"timeout_ms":1500,"environment":{"A":"1"},"resources":{"max_pids":7,"io":{"read_ops_per_second":5}},"isolation":{"network":true}}`)); err != nil {
		t.Fatal(err)
	}
	if err := r.Overlay([]byte(`{"environment":{"B":"2"},"isolation":{"network":false}}`)); err != nil {
		t.Fatal(err)
	}
	if r.TimeoutMS != 1500 || r.Resources.MaxPids != 7 || r.Isolation.Network || len(r.Environment) != 1 || r.Environment["B"] != "2" {
		t.Errorf("%+v", r)
	}
	if r.Resources.MemoryBytes != 256<<20 || len(r.Resources.Rlimits) != 0 {
		t.Errorf("something that was not named changed, or was completed: %+v", r.Resources)
	}
}

// TestDecodeOverLeavesTheBase: io is a pointer, which a request must not write through.
func TestDecodeOverLeavesTheBase(t *testing.T) {
	base := Default()
	if err := base.Overlay([]byte(`{"resources":{"io":{"read_ops_per_second":5}}}`)); err != nil {
		t.Fatal(err)
	}
	got, err := DecodeOver(base, []byte(`{"command":["true"],"resources":{"io":{"read_ops_per_second":9}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if *got.Resources.IO.ReadOpsPerSecond != 9 || *base.Resources.IO.ReadOpsPerSecond != 5 {
		t.Errorf("request %d, base %d", *got.Resources.IO.ReadOpsPerSecond, *base.Resources.IO.ReadOpsPerSecond)
	}
}

func TestOverlayRefuses(t *testing.T) {
	for _, c := range []struct {
		data    string
		code    fault.Code
		pointer string
	}{
		{`{"command":["true"]}`, fault.UnknownField, "/command"},
		{`{"stdin":"x"}`, fault.UnknownField, "/stdin"},
		{`{"timeout":5}`, fault.UnknownField, "/timeout"},
		{`{"timeout_ms":0}`, fault.OutOfRange, "/timeout_ms"},
		{`{"resources":{"max_pids":"7"}}`, fault.InvalidValue, "/resources/max_pids"},
		{`{"isolation":{"readonly_paths":["x"]}}`, fault.InvalidPath, "/isolation/readonly_paths/0"},
		{`{"timeout_ms":5`, fault.JSONSyntax, ""},
	} {
		r := Default()
		err := r.Overlay([]byte(c.data))
		var list fault.List
		if !errors.As(err, &list) || len(list) != 1 || list[0].Code != c.code || list[0].Field != c.pointer {
			t.Errorf("%s: %v", c.data, err)
		}
		if r.TimeoutMS != 30000 || len(r.Command) != 0 {
			t.Errorf("%s: a refused overlay changed the request", c.data)
		}
	}
}
