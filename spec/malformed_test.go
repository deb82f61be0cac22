package spec_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/spec/spectest"
)

// TestMalformed feeds every malformed document to the decoder and compares
// all problems that it reports, in their order.
func TestMalformed(t *testing.T) {
	cases, err := spectest.Malformed()
	if err != nil {
		t.Fatal(err)
	}
	if len(cases) < 70 {
		t.Errorf("only %d cases", len(cases))
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			document, err := c.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			r, err := spec.DecodeRequest(document)
			if r != nil || err == nil {
				t.Fatal("it was accepted")
			}
			if have := found(t, err); !slices.Equal(have, c.Want) {
				t.Errorf("\nhave %v\nwant %v\n%v", have, c.Want, err)
			}
		})
	}
}

// found takes a fault.List apart.
func found(t *testing.T, err error) []spectest.Problem {
	t.Helper()
	var list fault.List
	if !errors.As(err, &list) {
		t.Fatalf("%T is not a fault.List: %v", err, err)
	}
	var all []spectest.Problem
	for _, f := range list {
		if f.Message() == "" || f.Remedy() == "" {
			t.Errorf("%s %s has message %q and remedy %q", f.Code, f.Field, f.Message(), f.Remedy())
		}
		all = append(all, spectest.Problem{Code: string(f.Code), Pointer: f.Field})
	}
	return all
}

// TestUnlistedProblemsCostLittle bounds what a hostile document makes of a
// daemon's time: suggestions are made for problems that are listed, and no others.
func TestUnlistedProblemsCostLittle(t *testing.T) {
	const keys = 20000
	document := []byte(`{"command":["x"]` + strings.Repeat(`,"zzzzzzzz":1`, keys) + `}`)
	perKey := testing.AllocsPerRun(1, func() {
		if _, err := spec.DecodeRequest(document); err == nil {
			t.Error("it is accepted")
		}
	}) / keys
	if perKey > 20 {
		t.Errorf("%.0f allocations for each unknown key", perKey)
	}
}
