package shim

import (
	"slices"

	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/shim/host"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// rule finds out what Landlock can do here.
func (t *translation) rule(i spec.Isolation) error {
	t.landlock = host.Landlock()
	warning, err := judgeLandlock(t.landlock, i)
	if warning != "" {
		t.warnings = append(t.warnings, warning)
	}
	return err
}

// judgeLandlock refuses a request that requires Landlock where that is not all
// of it. Others are warned when there is none, and find in enforcement what an
// old one lacks.
func judgeLandlock(version int, i spec.Isolation) (warning string, err error) {
	text := ""
	switch {
	case version < plan.LandlockLeast:
		text = "this kernel has no Landlock (Linux 5.19): nothing stands behind the mounts"
	case version < plan.LandlockWhole:
		text = "Landlock of this kernel does not know abstract sockets and signals (Linux 6.12)"
	default:
		return "", nil
	}
	if slices.Contains(i.AllowDegraded, spec.WallLandlock) {
		return "", nil
	}
	if slices.Contains(i.Require, spec.WallLandlock) {
		return "", fault.New(fault.Unsupported, "build wall landlock", text).WithField("/isolation/require").
			WithHint("Drop landlock from isolation.require, list it in isolation.allow_degraded, or use a kernel that has it (lsm= of its command line may leave it out).")
	}
	if version < plan.LandlockLeast {
		warning = text
	}
	return warning, nil
}
