package shim

import (
	"github.com/capsule-run/capsule/runtime/cgroup"
	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/shim/bundle"
	"github.com/capsule-run/capsule/shim/host"
	"github.com/capsule-run/capsule/spec"
)

// warm walks the way of a request that does nothing, as far as nothing outside
// this process changes. A shim that waits has the time, and code and tables that
// are used for the first time cost most of what a start takes: each page of
// them is a fault. What comes out is thrown away, errors as well: they come
// again when they matter.
func warm() {
	r := spec.Default()
	r.Command = []string{"true"}
	req, err := spec.DecodeResolved(r.Encode())
	if err != nil {
		return
	}
	_, _ = cgroup.Detect()
	facts, err := host.Probe(req, host.Options{})
	if err != nil {
		return
	}
	config, skeleton, err := bundle.BuildParts(req, facts.Host)
	if err != nil {
		return
	}
	_, _ = plan.Compile(config, plan.Facts{Rootless: facts.Host.Rootless, BundleDir: "/", Kinds: host.Kinds(config), Skeleton: skeleton, Landlock: plan.LandlockWhole})
}
