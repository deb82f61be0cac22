package shim

import (
	"github.com/capsule-run/capsule/shim/shimapi"

	"encoding/json"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/shim/bundle"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// outside makes a translation of a bundle that comes as it is.
func outside(b shimapi.Bootstrap, config *specs.Spec) (*translation, error) {
	t := &translation{config: config, rootless: os.Geteuid() != 0, noInit: config.Annotations[bundle.AnnotationInit] == "false", ids: [2]int{-1, -1}}
	if err := t.rule(spec.Isolation{}); err != nil {
		return nil, err
	}
	if config.Linux == nil || config.Linux.Seccomp == nil {
		return t, nil
	}
	object, err := json.Marshal(config.Linux.Seccomp)
	if err != nil {
		return nil, fault.Wrap(fault.InvalidBundle, "encode seccomp", err).WithField("linux.seccomp")
	}
	if err := t.seccomp(b, spec.Isolation{Seccomp: spec.Seccomp{Custom: object}}); err != nil {
		return nil, fault.From(err, fault.Seccomp).WithField("linux.seccomp")
	}
	return t, nil
}
