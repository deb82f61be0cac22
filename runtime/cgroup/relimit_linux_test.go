package cgroup

import (
	"errors"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/spec/fault"
)

// TestLimitAgain: limits of a group go up and down, and are read back each time.
func TestLimitAgain(t *testing.T) {
	variants(t, func(t *testing.T, h *Host) {
		limits := func(memory, pids int64) *specs.LinuxResources {
			return &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &memory}, Pids: &specs.LinuxPids{Limit: &pids}}
		}
		g := newGroup(t, h, limits(64<<20, 20))
		for _, r := range []*specs.LinuxResources{limits(128<<20, 10), limits(16<<20, 30), limits(16<<20, 30)} {
			fits, err := h.Limit(g, r, nil)
			if !fits || err != nil {
				t.Fatalf("%d bytes: %v, %v", *r.Memory.Limit, fits, err)
			}
			if !g.Whole() || !g.Confirmed[LimitMemory] || !g.Confirmed[LimitSwap] || !g.Confirmed[LimitPids] {
				t.Errorf("%d bytes: not confirmed: %v", *r.Memory.Limit, g.Confirmed)
			}
		}
		// One that would stay from before.
		if fits, err := h.Limit(g, &specs.LinuxResources{Memory: limits(1<<20, 1).Memory}, nil); fits || err != nil {
			t.Errorf("a limit is left out: %v, %v", fits, err)
		}
		// One that no host has.
		r := limits(16<<20, 30)
		r.HugepageLimits = []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 1}}
		if _, err := h.Limit(g, r, nil); !errors.Is(err, &fault.Fault{Code: fault.LimitUnavailable}) {
			t.Errorf("%v, want E4001", err)
		}
	}, Memory, Pids)
}
