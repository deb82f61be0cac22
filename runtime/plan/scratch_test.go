package plan

import (
	"fmt"
	"reflect"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestScratch: a plan that is made in the memory of another is the same as one in its own, also
// when it is longer or shorter.
func TestScratch(t *testing.T) {
	scratch := new(Scratch)
	for _, binds := range []int{3, 200, 0, 60, 60} {
		s := bare()
		for i := range binds {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: fmt.Sprint("/b", i), Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "size=4k"}})
		}
		facts := containerFacts()
		want, err := Container(s, facts)
		if err != nil {
			t.Fatal(err)
		}
		facts.Scratch = scratch
		got, err := Container(s, facts)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("with %d binds the plans differ", binds)
		}
	}
}
