package main

import (
	"context"
	"os"

	"github.com/capsule-run/capsule/shim"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor"
	"github.com/capsule-run/capsule/supervisor/policy"
)

// reducedEngine runs requests of the process backend in this process: there is no
// sandbox on this system, and so nothing that a process of its own would have to hold.
type reducedEngine struct{ rules *policy.Policy }

// openEmbedded gives what runs executions on this system.
func openEmbedded(rules *policy.Policy) (engine, error) { return reducedEngine{rules}, nil }

// permit refuses what this system has not, and what policy does not allow.
func (e reducedEngine) permit(req *spec.Request) error {
	if req.Isolation.Backend != spec.BackendProcess {
		return fault.New(fault.Unsupported, "choose backend", "sandboxes need Linux; this is darwin").WithField("/isolation/backend").
			WithHint("Ask for the process backend, which has limits but no walls, or run capsule in a Linux machine.")
	}
	if e.rules != nil {
		return e.rules.Check(uint32(os.Geteuid()), req)
	}
	return nil
}

// Start implements starter.
func (e reducedEngine) Start(ctx context.Context, o *order, st supervisor.Streams) (execution, error) {
	if err := e.permit(o.request); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fault.Wrap(fault.IO, "find capsulectl", err)
	}
	id := o.id
	if id == "" {
		id = newUUID()
	}
	x, err := shim.StartReduced(ctx, o.request, shim.ReducedOptions{ID: id, Stdin: st.Stdin, Stdout: st.Stdout, Stderr: st.Stderr, Launcher: []string{self, launcherWord}})
	if err != nil {
		return nil, err
	}
	return x, nil
}

// Explain implements engine.
func (reducedEngine) Explain(context.Context, *spec.Request) (string, error) {
	return "", fault.New(fault.Unsupported, "explain", "launch plans are for Linux; this is darwin")
}

// ExplainBundle implements engine.
func (reducedEngine) ExplainBundle(context.Context, string) (string, error) {
	return "", fault.New(fault.Unsupported, "explain", "launch plans are for Linux; this is darwin")
}

// launcherWord makes capsulectl become a command, whose limits it sets first.
const launcherWord = "become-command"

// launcher does that when the arguments say so. It returns true when it failed.
func launcher(args []string) bool {
	if len(args) != 1 || args[0] != launcherWord {
		return false
	}
	shim.EnterReduced()
	return true
}
