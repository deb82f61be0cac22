package spec

import (
	"strings"

	"github.com/capsule-run/capsule/spec/fault"
)

// Profile is a named set of defaults. A zero number, an empty string or false
// leaves the field of the request as it is.
type Profile struct {
	Name string
	// Description says in a few words what the profile is for.
	Description string
	// TimeoutMS, MemoryBytes, MaxOutputBytes and MaxPids have the units and
	// ranges of the fields of Request.
	TimeoutMS      int64
	MemoryBytes    int64
	MaxOutputBytes int64
	MaxPids        int64
	// Network gives the network of the host.
	Network bool
	// Seccomp is the name of a shipped filter.
	Seccomp string
}

var shipped = [...]Profile{
	{Name: "ai-agent", Description: "code that a model has written",
		TimeoutMS: 30000, MemoryBytes: 512 << 20, MaxOutputBytes: 2 << 20, MaxPids: 50},
	{Name: "development", Description: "builds and tests of one's own code, with network",
		TimeoutMS: 120000, MemoryBytes: 2 << 30, MaxPids: 200, Network: true},
	{Name: "production", Description: "jobs of a service",
		TimeoutMS: 60000, MemoryBytes: 1 << 30, MaxPids: 100},
	{Name: "high-security", Description: "hostile code that needs little",
		TimeoutMS: 10000, MemoryBytes: 64 << 20, MaxOutputBytes: 64 << 10, MaxPids: 5, Seccomp: SeccompStrict},
	{Name: "python-data-science", Description: "long computations on large data",
		TimeoutMS: 300000, MemoryBytes: 4 << 30},
}

// Profiles lists the shipped profiles. The caller owns the result.
func Profiles() []Profile { return append([]Profile(nil), shipped[:]...) }

// ApplyProfile sets what the shipped profile of that name sets. Call it on
// defaults, before the request's own fields: precedence is built-in, profile,
// request. An unknown name is E1004 and changes nothing.
func (r *Request) ApplyProfile(name string) error {
	names := make([]string, len(shipped))
	for i := range shipped {
		if shipped[i].Name == name {
			shipped[i].Apply(r)
			return nil
		}
		names[i] = shipped[i].Name
	}
	f := fault.New(fault.UnknownProfile, "", "unknown profile "+shown(name)+"; shipped are "+strings.Join(names, ", "))
	if near := nearest(name, names); near != "" {
		f.Hint = "Did you mean `" + near + "`?"
	}
	return f
}

// Apply sets what p sets.
func (p Profile) Apply(r *Request) {
	for _, n := range []struct {
		from int64
		to   *int64
		ask  string
	}{
		{p.TimeoutMS, &r.TimeoutMS, ""},
		{p.MemoryBytes, &r.Resources.MemoryBytes, LimitMemory},
		{p.MaxOutputBytes, &r.Resources.MaxOutputBytes, ""},
		{p.MaxPids, &r.Resources.MaxPids, LimitPids},
	} {
		if n.from != 0 {
			*n.to = n.from
			if n.ask != "" {
				r.Ask(n.ask)
			}
		}
	}
	if p.Network {
		r.Isolation.Network = true
	}
	if p.Seccomp != "" {
		r.Isolation.Seccomp = Seccomp{Name: p.Seccomp}
	}
}
