package plan

import (
	"bytes"
	"maps"
	"reflect"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Origin is what Compile made a plan of. Neither may change afterwards.
type Origin struct {
	Spec  *specs.Spec
	Facts Facts
}

// Rebind is Compile for an origin that differs from that of p in what Command alone
// depends on: arguments, environment, rlimits, stdin. Nothing but Command is compiled
// again, all else is shared with p. Nil without an error: the origins differ in more,
// or p has steps besides those of a sandbox with a command.
func (p *Plan) Rebind(from, to Origin) (*Plan, error) {
	if !sameFacts(&from.Facts, &to.Facts) || !sameSpec(from.Spec, to.Spec) {
		return nil, nil
	}
	return p.Recommand(to)
}

// Recommand is Rebind for an origin that is known to differ in no more.
func (p *Plan) Recommand(to Origin) (*Plan, error) {
	if p.Before != nil || p.Procfs != nil {
		return nil, nil
	}
	if err := check(to.Spec, to.Facts); err != nil {
		return nil, err
	}
	q := *p
	q.Command, q.Walls = nil, nil
	c := &compiler{spec: to.Spec, facts: to.Facts, plan: &q}
	if err := c.command(); err != nil {
		return nil, err
	}
	for _, wall := range q.Walls {
		if !slices.Contains(p.Walls, wall) {
			return nil, nil
		}
	}
	q.Walls = p.Walls
	return &q, q.whole(q.Command)
}

// sameFacts compares all that Compile looks at but NoStdin. The skeleton is what the
// annotation holds.
func sameFacts(a, b *Facts) bool {
	x, y := *a, *b
	x.Kinds, x.Filter, x.Fallback, x.Skeleton, x.NoStdin = nil, nil, nil, nil, false
	y.Kinds, y.Filter, y.Fallback, y.Skeleton, y.NoStdin = nil, nil, nil, nil, false
	return bytes.Equal(a.Filter, b.Filter) && bytes.Equal(a.Fallback, b.Fallback) && (a.Fallback == nil) == (b.Fallback == nil) &&
		maps.Equal(a.Kinds, b.Kinds) && reflect.DeepEqual(&x, &y)
}

// sameSpec compares all that Compile looks at but what becomes Command. The resources
// are those of a control group, which no step sets.
func sameSpec(a, b *specs.Spec) bool {
	if a.Process == nil || b.Process == nil || a.Linux == nil || b.Linux == nil {
		return false
	}
	if (len(a.Process.Rlimits) == 0) != (len(b.Process.Rlimits) == 0) {
		return false // they are a wall, which the plan would claim without having it
	}
	x, y, linux, process := *a, *b, *a.Linux, *a.Process
	process.Args, process.Env, process.Rlimits = b.Process.Args, b.Process.Env, b.Process.Rlimits
	linux.Resources = b.Linux.Resources
	x.Process, x.Linux, x.Annotations, y.Annotations = &process, &linux, nil, nil
	return sameAnnotations(a.Annotations, b.Annotations) && reflect.DeepEqual(&x, &y)
}

func sameAnnotations(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for key, value := range a {
		if other, ok := b[key]; !ok || other != value && key != AnnotationExecutionID {
			return false
		}
	}
	return true
}
