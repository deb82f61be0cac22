package task

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/runtime/task/terms"
	"github.com/capsule-run/capsule/spec/fault"
)

// amend puts into a configuration what the terms take away.
func amend(t *terms.Terms, s *specs.Spec) error {
	if s.Process == nil || s.Linux == nil {
		return terms.Wrong("", fault.InvalidBundle, "the container has no process")
	}
	if s.Process.Terminal {
		return terms.Wrong("", fault.Unsupported, "a container with a terminal gets no verdict: set tty to false")
	}
	if t.MaxPids > 0 {
		if s.Linux.Resources == nil {
			s.Linux.Resources = &specs.LinuxResources{}
		}
		if p := s.Linux.Resources.Pids; p == nil || p.Limit == nil || *p.Limit <= 0 || *p.Limit > t.MaxPids {
			s.Linux.Resources.Pids = &specs.LinuxPids{Limit: &t.MaxPids}
		}
	}
	if !t.Network {
		// Not the pod's, and least of all the host's.
		s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace})
	}
	return addRlimits(t, s.Process)
}

// addRlimits lowers limits: where the container has one already the lower holds.
func addRlimits(t *terms.Terms, p *specs.Process) error {
	for _, want := range t.Rlimits {
		if want.Soft > want.Hard {
			return terms.Wrong("rlimits", fault.OutOfRange, want.Type+" has a soft limit above its hard one")
		}
		found := false
		for i := range p.Rlimits {
			if have := &p.Rlimits[i]; have.Type == want.Type {
				have.Soft, have.Hard, found = min(have.Soft, want.Soft), min(have.Hard, want.Hard), true
			}
		}
		if !found {
			highest, err := inherited(want.Type)
			if err != nil {
				return err
			}
			want.Hard = min(want.Hard, highest)
			want.Soft = min(want.Soft, want.Hard)
			p.Rlimits = append(p.Rlimits, want)
		}
	}
	return nil
}

// inherited is the hard limit that a process of ours begins with.
func inherited(name string) (uint64, error) {
	number, ok := plan.Rlimit(name)
	if !ok {
		return 0, terms.Wrong("rlimits", fault.InvalidValue, name+" is no resource limit")
	}
	var l unix.Rlimit
	if err := unix.Getrlimit(int(number), &l); err != nil {
		return 0, fault.Wrap(fault.SystemCall, "getrlimit", err)
	}
	return l.Max, nil
}
