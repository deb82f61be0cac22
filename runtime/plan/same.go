package plan

import "slices"

// SameSandbox tells whether two plans build the same sandbox: they differ in
// Command alone. A sandbox that was built by one can then run the command of the
// other.
func (p *Plan) SameSandbox(q *Plan) bool {
	return p.Clone == q.Clone && p.DenySetgroups == q.DenySetgroups && p.Tasks == q.Tasks && p.HasInit == q.HasInit && p.Listens == q.Listens && p.BornLast == q.BornLast && (p.Procfs == nil) == (q.Procfs == nil) && (p.Procfs == nil || p.Procfs.SameSandbox(q.Procfs)) &&
		slices.Equal(p.UIDMap, q.UIDMap) && slices.Equal(p.GIDMap, q.GIDMap) &&
		slices.Equal(p.Disks, q.Disks) && slices.Equal(p.Walls, q.Walls) && slices.Equal(p.Partial, q.Partial) && slices.Equal(p.Rights, q.Rights) && slices.Equal(p.Joins, q.Joins) && slices.Equal(p.Copies, q.Copies) &&
		slices.EqualFunc(p.Sources, q.Sources, sameSource) &&
		sameSteps(p.Before, q.Before) && sameSteps(p.Setup, q.Setup) && sameSteps(p.Payload, q.Payload) && sameSteps(p.Init, q.Init)
}

func sameSteps(a, b []Step) bool {
	if len(a) != len(b) {
		return false
	}
	if len(a) == 0 || &a[0] == &b[0] {
		return true // of a plan and of one that was made of it, see Rebind
	}
	for i := range a {
		if !sameStep(&a[i], &b[i]) {
			return false
		}
	}
	return true
}

// sameStep compares what is done; Field and Path only tell of it.
func sameStep(a, b *Step) bool {
	return a.Op == b.Op && a.Result == b.Result && a.Mode == b.Mode && a.Skip == b.Skip && a.Expect == b.Expect && slices.EqualFunc(a.Args, b.Args, sameArg)
}

func sameArg(a, b Arg) bool {
	return a.Kind == b.Kind && a.N == b.N && a.S == b.S && slices.Equal(a.Vec, b.Vec)
}

func sameSource(a, b Source) bool {
	return a.Reg == b.Reg && a.Path == b.Path && a.Recursive == b.Recursive && a.Set == b.Set && a.Clear == b.Clear &&
		a.Propagation == b.Propagation && slices.Equal(a.UIDMap, b.UIDMap) && slices.Equal(a.GIDMap, b.GIDMap)
}
