package spec

// Template is the request without what is decided after its sandbox is built: the command with
// what it reads and is given, times, output, shares of the processor, processes, how
// much of each rlimit, and what must be enforced. Two requests with equal templates can run
// in each other's sandbox, on one host. It shares the rest with r, which is not changed.
func (r *Request) Template() *Request {
	t, usual := *r, Default()
	t.Command, t.Environment, t.Stdin, t.Labels = nil, nil, nil, nil
	t.TimeoutMS, t.GraceMS = usual.TimeoutMS, usual.GraceMS
	v, u := &t.Resources, &usual.Resources
	v.CPUShares, v.CPUQuota, v.CPUTimeMS = u.CPUShares, u.CPUQuota, u.CPUTimeMS
	v.MaxPids, v.MaxOutputBytes, v.OutputPolicy = u.MaxPids, u.MaxOutputBytes, u.OutputPolicy
	v.Rlimits = make(map[string]Rlimit, len(r.Resources.Rlimits))
	for name := range r.Resources.Rlimits {
		v.Rlimits[name] = Rlimit{}
	}
	t.Isolation.Require = nil // asked of the sandbox when a request takes it
	return &t
}
