package spec

import "maps"

// Template is the request without what is decided after its sandbox is built: the command with
// what it reads and is given, times, output, shares of the processor, processes, and what
// must be enforced. Two completed requests with equal templates can run in each other's
// sandbox, on one host, as long as that of the first does not bound the processor. The
// template shares the rest with r, which is not changed.
func (r *Request) Template() *Request {
	t, usual := *r, Default()
	t.Command, t.Environment, t.Stdin, t.Labels = nil, nil, nil, nil
	t.TimeoutMS, t.GraceMS = usual.TimeoutMS, usual.GraceMS
	v, u := &t.Resources, &usual.Resources
	v.CPUShares, v.CPUQuota, v.CPUTimeMS = u.CPUShares, u.CPUQuota, u.CPUTimeMS
	v.MaxPids, v.MaxOutputBytes, v.OutputPolicy = u.MaxPids, u.MaxOutputBytes, u.OutputPolicy
	v.Rlimits = maps.Clone(v.Rlimits)
	if n, _ := r.defaultRlimit("nproc"); v.Rlimits["nproc"] == (Rlimit{n, n}) {
		delete(v.Rlimits, "nproc") // it says what max_pids does
	}
	t.Isolation.Require = nil // asked of the sandbox when a request takes it
	return &t
}
