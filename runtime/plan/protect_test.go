package plan

import (
	"slices"
	"testing"
)

// TestInitIsNeverExposed: rootless, the command has the ids of init. Init must
// not be dumpable when its capabilities, which the command lacks, are gone.
func TestInitIsNeverExposed(t *testing.T) {
	for _, rootless := range []bool{false, true} {
		p, err := Compile(bare(), Facts{BundleDir: "/bundle", Rootless: rootless})
		if err != nil {
			t.Fatal(err)
		}
		dumpable := func(s Step) bool { return s.Op == OpPrctl && s.Args[0].N == prSetDumpable && s.Args[1].N == 0 }
		drops := slices.IndexFunc(p.Init, func(s Step) bool { return s.Op == OpCapset })
		if first := slices.IndexFunc(p.Init, dumpable); first != 0 || drops < 0 {
			t.Errorf("rootless %v: dumpable is cleared at step %d, capabilities at %d", rootless, first, drops)
		}
		if !slices.ContainsFunc(p.Init[drops+1:], dumpable) {
			t.Errorf("rootless %v: dumpable is not cleared after the last change of credentials", rootless)
		}
	}
}
