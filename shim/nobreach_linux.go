//go:build !breach

package shim

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/runtime/plan"
)

func breachConfig(*specs.Spec) {}

func breachPlan(*plan.Plan) {}
