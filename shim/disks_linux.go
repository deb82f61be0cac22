package shim

import (
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/runtime/cgroup"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// ioReaches refuses a bound on the traffic to disks that part of the traffic
// would escape, or tells of it where the request lets io be degraded.
func (e *execution) ioReaches(h *cgroup.Host, r *specs.LinuxResources) error {
	bounds := e.req.Resources.IO
	if !bounds.Bounds() {
		return nil
	}
	text, hint := "", ""
	// Bytes that are written back later are charged to their writer's group where
	// one v2 tree has both controllers (the kernel's cgroup-v2.rst, Writeback).
	writeback := h.Controller(cgroup.Memory).Version == 2 && h.Controller(cgroup.IO).Version == 2
	gaps := e.facts.io.Gaps(bounds, writeback)
	switch {
	case r == nil || r.BlockIO == nil:
		text, hint = "this host shows no disk to bound", "Mount sysfs at /sys, or drop resources.io."
	case len(gaps) > 0:
		text = "it does not reach all that the command can use: " + strings.Join(gaps, ", ")
		hint = "Show the sandbox directories on local disks instead."
		if !writeback {
			hint += " What is written there is bounded only with cgroup v2: boot with systemd.unified_cgroup_hierarchy=1, or bind it read-only."
		}
	default:
		return nil
	}
	if !e.mayLack(spec.LimitIO) {
		f := fault.New(fault.LimitUnavailable, "limit "+spec.LimitIO, text).WithField(limitField[spec.LimitIO]).
			WithHint(hint + ` Or list "io" in isolation.allow_degraded.`)
		f.Details = map[string]any{"limit": spec.LimitIO, "paths": gaps}
		return f
	}
	e.warnOnce("limit " + spec.LimitIO + ": " + text)
	e.facts.degraded = append(e.facts.degraded, spec.LimitIO)
	return nil
}
