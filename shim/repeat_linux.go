package shim

import (
	"reflect"
	"slices"

	"github.com/capsule-run/capsule/shim/bundle"
	"github.com/capsule-run/capsule/shim/host"
	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/spec"
)

// model is a translation with what it was made of, for others that come to the same.
type model struct {
	template *spec.Request // of the request
	policy   *shimapi.Policy
	facts    host.Facts
	made     translation
}

// remember keeps a translation as the model of those to come. Facts are as they were
// probed: translate adds to its own.
func (s *spare) remember(boot shimapi.Bootstrap, req *spec.Request, t *translation) {
	s.model = &model{template: req.Template(), policy: boot.Policy, facts: t.probed, made: *t}
}

// known are the facts; nil without a model.
func (m *model) known() *host.Facts {
	if m == nil {
		return nil
	}
	return &m.facts
}

// repeat is translate for a request with the template of the model, on a host that looks as it
// did: whatever is made of these is the same, and only the command and the limits
// are new. Nil: it has to be translated.
func (m *model) repeat(boot shimapi.Bootstrap, req *spec.Request, facts *host.Facts, strict []string) *translation {
	if m == nil || requiresWalls(req) || !sayTheSame(m.policy, boot.Policy) {
		return nil
	}
	was, is := m.facts, *facts
	was.Host.ExecutionID, is.Host.ExecutionID = "", ""
	if !reflect.DeepEqual(was, is) || !reflect.DeepEqual(m.template, req.Template()) {
		return nil
	}
	facts.Host.SlotBase = m.made.base
	config, err := bundle.Repeat(m.made.config, req, facts.Host)
	if err != nil {
		return nil // it is refused again
	}
	t := m.made
	t.config, t.slot, t.repeated = config, nil, true
	t.warnings = slices.Concat(facts.Warnings, strict, m.made.lasting)
	return &t
}

// sayTheSame tells whether two policies say the same of filters and nothing of
// commands; what they say of paths has been asked when these were probed.
func sayTheSame(a, b *shimapi.Policy) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.AllowUnconfined == b.AllowUnconfined && a.AnyCommand && b.AnyCommand && len(a.Blocked) == 0 && len(b.Blocked) == 0
}

// requiresWalls tells whether a request is refused where a wall is not all that it can be.
func requiresWalls(req *spec.Request) bool {
	return slices.ContainsFunc(req.Isolation.Require, func(name string) bool { return name == spec.WallLandlock || name == spec.WallSeccomp })
}
