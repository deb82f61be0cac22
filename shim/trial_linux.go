package shim

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// WithoutLimits in Trial.Without leaves out the control group.
const WithoutLimits = "limits"

// Trial is an execution that is to show what the host can do. It takes the
// same way through this package as every other.
type Trial struct {
	// Request is complete, as spec.DecodeResolved gives it.
	Request *spec.Request
	// Without names what is left out of the sandbox, so that what stands behind
	// a wall that cannot be built is tried all the same: names of walls
	// that Removable knows, and WithoutLimits. Such a sandbox may run only a
	// command that is trusted.
	Without []string
}

// Outcome is how a trial went.
type Outcome struct {
	// Response is what a caller would have got, enforcement included.
	Response *spec.Response
	// Fault is why the command did not run. Nil: it did.
	Fault error
	// Built are the walls of the plan when the command ran.
	Built []string
	// Left is what could not be taken away again. Nil: nothing.
	Left error
}

// Removable tells whether a trial can go without a wall.
func Removable(wall string) bool {
	switch wall {
	case spec.WallNetworkNamespace, spec.WallTimeNamespace, spec.WallCgroupNamespace, spec.WallProcMasking, spec.WallSeccomp, spec.WallLandlock, WithoutLimits:
		return true
	}
	return false
}

// Try makes a trial in this process and returns when nothing of it is left but
// its directory in boot.StateDir, which exists already and is the caller's, as
// is descriptor shimapi.LockFD, open on it.
func Try(boot shimapi.Bootstrap, t Trial) *Outcome {
	e := newExecution(boot)
	e.without = t.Without
	close(e.lost) // there is no starter
	if err := e.create(t.Request, false); err != nil {
		e.note(func(o *observation) { o.failure = err })
	}
	close(e.prepared)
	e.run()
	out := &Outcome{Fault: e.observed().failure, Left: e.left}
	if e.sandbox != nil {
		out.Built = e.plan.Walls
	}
	r, err := spec.DecodeResponse(e.response)
	if err != nil {
		// It was encoded by this process.
		r = &spec.Response{Error: spec.ErrorFrom(fault.From(err, fault.InvalidValue))}
	}
	out.Response = r
	return out
}

// leaveOut takes walls out of the configuration of a trial.
func (t *translation) leaveOut(walls []string) {
	l := t.config.Linux
	namespace := func(wall string, kind specs.LinuxNamespaceType) {
		if slices.Contains(walls, wall) {
			l.Namespaces = slices.DeleteFunc(l.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind })
		}
	}
	namespace(spec.WallNetworkNamespace, specs.NetworkNamespace)
	namespace(spec.WallTimeNamespace, specs.TimeNamespace)
	namespace(spec.WallCgroupNamespace, specs.CgroupNamespace)
	if slices.Contains(walls, spec.WallSeccomp) {
		l.Seccomp, t.filter, t.object = nil, nil, ""
	}
	if slices.Contains(walls, spec.WallLandlock) {
		t.landlock = 0
	}
	if slices.Contains(walls, spec.WallProcMasking) {
		l.MaskedPaths, l.ReadonlyPaths = nil, nil
		t.config.Mounts = slices.DeleteFunc(t.config.Mounts, func(m specs.Mount) bool { return m.Type == "proc" })
	}
}
