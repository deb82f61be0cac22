package shim

import (
	"testing"

	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// TestLandlockAsked: kernels without Landlock, with an early one and with all of
// it, for requests that require it, allow its absence, or say nothing.
func TestLandlockAsked(t *testing.T) {
	require, allow := []string{spec.WallLandlock}, []string{spec.WallSeccomp, spec.WallLandlock}
	for _, c := range []struct {
		version         int
		require, allow  []string
		warned, refused bool
	}{
		{0, nil, nil, true, false}, {1, nil, nil, true, false}, {plan.LandlockLeast, nil, nil, false, false}, {plan.LandlockWhole, nil, nil, false, false},
		{0, require, nil, false, true}, {plan.LandlockWhole - 1, require, nil, false, true}, {plan.LandlockWhole, require, nil, false, false},
		{0, nil, allow, false, false}, {0, require, allow, false, false},
	} {
		warning, err := judgeLandlock(c.version, spec.Isolation{Require: c.require, AllowDegraded: c.allow})
		if (warning != "") != c.warned || (err != nil) != c.refused {
			t.Errorf("version %d, require %v, allow %v: %q, %v", c.version, c.require, c.allow, warning, err)
		}
		if err != nil && fault.From(err, fault.IO).Code != fault.Unsupported {
			t.Errorf("version %d: %v", c.version, err)
		}
	}
}
