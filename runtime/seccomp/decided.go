package seccomp

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// severity orders the actions of a filter, the mildest first.
var severity = []specs.LinuxSeccompAction{specs.ActAllow, specs.ActLog, specs.ActTrace, specs.ActNotify, specs.ActErrno, specs.ActTrap,
	specs.ActKillThread, specs.ActKill, specs.ActKillProcess}

// Decided gives a filter in which no call has two rules without conditions: podman's own
// profile allows setns by one and refuses it by another. Which of them a library obeys
// depends on the library; here it is the stricter. What is given is not changed. It tells
// which calls there were.
func Decided(s *specs.LinuxSeccomp) (*specs.LinuxSeccomp, []string) {
	strictest := map[string]int{}
	var twice []string
	for _, r := range s.Syscalls {
		if len(r.Args) > 0 {
			continue
		}
		rank := slices.Index(severity, r.Action)
		for _, name := range r.Names {
			before, seen := strictest[name]
			if seen && before != rank && !slices.Contains(twice, name) {
				twice = append(twice, name)
			}
			if !seen || rank > before {
				strictest[name] = rank
			}
		}
	}
	if len(twice) == 0 {
		return s, nil
	}
	out := *s
	out.Syscalls = nil
	for _, r := range s.Syscalls {
		if len(r.Args) == 0 {
			rank := slices.Index(severity, r.Action)
			r.Names = slices.DeleteFunc(slices.Clone(r.Names), func(name string) bool { return strictest[name] != rank })
		}
		if len(r.Names) > 0 {
			out.Syscalls = append(out.Syscalls, r)
		}
	}
	return &out, twice
}
