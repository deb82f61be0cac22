package supervisor

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/shim/layout"
	shimv1 "github.com/capsule-run/capsule/shim/shimapi/v1/plain"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// sweepDead looks for executions whose shim is dead and starts the removal of
// what they left. The returned function waits for it and tells whether there
// was anything. mine is not looked at.
func (s *Supervisor) sweepDead(mine string) (wait func() bool) {
	wait = func() bool { return false }
	dir, err := os.Open(s.state.Executions())
	if err != nil {
		return wait
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return wait
	}
	for _, name := range names {
		if _, err := executionID(name); err != nil {
			continue // nothing of ours
		}
		if name != mine && abandoned(int(dir.Fd()), name) {
			return s.startSweep()
		}
	}
	return wait
}

// abandoned tells whether the shim of an execution is dead and left something
// that nobody comes for. A recorded execution waits for its turn or to be
// collected, unless its shim died without a result or could not clean up.
func abandoned(executions int, name string) bool {
	fd, err := unix.Openat(executions, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd) // gives the lock back
	if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) != nil {
		return false
	}
	dir := layout.InDirectory(fd)
	if _, err := os.Lstat(dir.Record()); err != nil {
		return true
	}
	return needsSweep(dir)
}

// startSweep runs the shim program in its second role: it knows cgroups.
func (s *Supervisor) startSweep() (wait func() bool) { return s.sweepOne("") }

// sweepOne sweeps one execution, or all.
func (s *Supervisor) sweepOne(id string) (wait func() bool) {
	args := []string{"capsule-shim", "sweep", string(s.state)}
	if id != "" {
		args = append(args, id)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return func() bool { return false } // the next supervisor tries again
	}
	defer null.Close()
	p, err := s.startProcess(args, null, null, os.Stderr)
	if err != nil {
		return func() bool { return false } // as above
	}
	return func() bool { p.wait(); return true } // it logs its own errors
}

// explain asks a shim of its own for a plan.
func (s *Supervisor) explain(ctx context.Context, req *spec.Request, bundle string) (string, error) {
	id, err := executionID("")
	if err != nil {
		return "", err
	}
	var request []byte
	var command []string
	if req != nil {
		request, command = req.Encode(), req.Command
	}
	e, err := s.spawn(id, command, nil, Streams{})
	if err != nil {
		return "", err
	}
	defer e.process.wait()
	defer e.client.Close()
	answer, err := e.shim.Explain(ctx, &shimv1.ExplainRequest{Request: request, Bundle: bundle})
	if err != nil {
		return "", fault.Wrap(fault.Unreachable, "explain", err)
	}
	if len(answer.Error) == 0 {
		return answer.Plan, nil
	}
	refused, err := spec.DecodeResponse(answer.Error)
	if err != nil || refused.Error == nil {
		return "", fault.Wrap(fault.Unreachable, "explain", err)
	}
	return "", fromWire(refused.Error)
}

// fromWire makes the fault again that a shim sent.
func fromWire(w *spec.Error) error {
	problems, _ := w.Details["problems"].([]any)
	text := func(m map[string]any, key string) string { s, _ := m[key].(string); return s }
	var all fault.List
	for _, p := range problems {
		if m, ok := p.(map[string]any); ok {
			all = append(all, &fault.Fault{Code: fault.Code(text(m, "code")), Err: errors.New(text(m, "message")), Hint: text(m, "hint"), Field: text(m, "pointer")})
		}
	}
	if len(all) > 0 {
		return all
	}
	return &fault.Fault{Code: fault.Code(w.Code), Err: errors.New(w.Message), Hint: w.Hint, Field: text(w.Details, "field"), Details: w.Details}
}
