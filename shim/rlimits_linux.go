package shim

import (
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// fitRlimits makes the rlimits of a request fit below the hard limits of this
// process, which the sandbox cannot raise: it has no privilege on the host. One
// that the caller asked for is E4001, unless it may be missing; a default
// becomes the hard limit, and the warnings tell. Either is the stricter one.
func fitRlimits(req *spec.Request) (warnings []string, err error) {
	var all fault.List
	fitted := make(map[string]spec.Rlimit, len(req.Resources.Rlimits))
	for name, l := range req.Resources.Rlimits {
		fitted[name] = l
		number, ok := plan.Rlimit("RLIMIT_" + strings.ToUpper(name))
		if !ok {
			continue // the plan refuses it
		}
		hard, fits := hardLimit(number, l.Hard)
		if fits {
			continue
		}
		text := "rlimit " + name + " is " + rlimitText(hard) + " instead of " + rlimitText(l.Hard) + ", the hard limit that capsule was started with"
		if req.Asked(spec.RlimitPrefix+name) && !slices.Contains(req.Isolation.AllowDegraded, spec.LimitRlimits) {
			f := fault.New(fault.LimitUnavailable, "limit "+name, "at most "+rlimitText(hard)+", the hard limit that capsule was started with")
			all = append(all, f.WithField("/resources/rlimits/"+name).
				WithHint("Ask for less, start capsule with a higher limit (ulimit -H, LimitNOFILE= of a unit), or list \"rlimits\" in isolation.allow_degraded."))
			continue
		}
		fitted[name] = spec.Rlimit{Soft: min(l.Soft, hard), Hard: hard}
		warnings = append(warnings, text)
	}
	req.Resources.Rlimits = fitted
	slices.Sort(warnings)
	slices.SortFunc(all, func(a, b *fault.Fault) int { return strings.Compare(a.Field, b.Field) })
	return warnings, all.Err()
}

// hardLimit is the hard limit of this process, and whether want fits below it.
// With CAP_SYS_RESOURCE it is raised: a hard limit binds nothing here, and the
// sandbox, to which it matters, sets its own.
func hardLimit(number int, want uint64) (hard uint64, fits bool) {
	var have unix.Rlimit
	if err := unix.Prlimit(0, number, nil, &have); err != nil || want <= have.Max {
		return have.Max, true // what the kernel does not know the launch reports
	}
	raised := unix.Rlimit{Cur: have.Cur, Max: want}
	return have.Max, unix.Prlimit(0, number, &raised, nil) == nil
}

func rlimitText(n uint64) string {
	if n == unix.RLIM_INFINITY {
		return "unlimited"
	}
	return strconv.FormatUint(n, 10)
}
