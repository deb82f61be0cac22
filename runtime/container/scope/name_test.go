package scope

import (
	"errors"
	"strings"
	"testing"

	"github.com/capsule-run/capsule/spec/fault"
)

func TestParse(t *testing.T) {
	for path, want := range map[string]Unit{
		"":                         {"capsule-oci-x.scope", "system.slice"},
		"machine.slice:libpod:abc": {"libpod-abc.scope", "machine.slice"},
		"kubepods-burstable-pod1_2.slice:cri-containerd:a1": {"cri-containerd-a1.scope", "kubepods-burstable-pod1_2.slice"},
		"::abc":           {"abc.scope", "system.slice"},
		"-.slice:crio:b2": {"crio-b2.scope", "-.slice"},
	} {
		if got, err := Parse(path, "x"); err != nil || got != want {
			t.Errorf("%q: %+v %v", path, got, err)
		}
	}
	for _, path := range []string{"/a/b", "a:b", "a.slice:b:", "machine:libpod:x", "a.slice:b:c/d", "a.slice:b:c d", "../a.slice:b:c", "a.slice:b:c:d", "a.slice::" + strings.Repeat("n", 255)} {
		if got, err := Parse(path, "x"); !errors.Is(err, &fault.Fault{Code: fault.InvalidBundle}) {
			t.Errorf("%q: %+v %v", path, got, err)
		}
	}
}
