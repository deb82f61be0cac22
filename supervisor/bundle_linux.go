package supervisor

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/capsule-run/capsule/shim/shimapi"
	shimv1 "github.com/capsule-run/capsule/shim/shimapi/v1/plain"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// StartBundle is Start for the OCI bundle in dir, which runs with the rights of this
// process's own user: a daemon offers it to nobody. base has what a bundle cannot
// say. Policy judges what the bundle asks for as it does a request. The second
// result is that request.
func (s *Supervisor) StartBundle(ctx context.Context, dir string, base *spec.Request, id string, st Streams) (*Execution, *spec.Request, error) {
	id, err := executionID(id)
	if err != nil {
		return nil, nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, nil, fault.Wrap(fault.InvalidPath, "find bundle", err)
	}
	document, err := s.bundleCall(ctx, nil, &shimv1.BundleRequest{Action: shimapi.BundleLoad, Dir: dir, Request: base.Encode()})
	if err != nil {
		return nil, nil, err
	}
	req, err := spec.DecodeResolved(document)
	if err != nil {
		return nil, nil, err
	}
	if err := s.permit(id, req); err != nil {
		return nil, req, err
	}
	// No request in the first message: the shim begins with Create, which names the bundle.
	e, err := s.spawn(id, req.Command, nil, Streams{})
	if err != nil {
		return nil, req, err
	}
	e.bundle, e.latest = dir, s.latest(timeoutOf(req))
	e.begin(ctx, req.Encode(), st)
	e.sweep = s.sweepDead(id)
	return e, req, nil
}

// ValidateBundle tells what is wrong with the bundle in dir, and what this host can
// do of it. base is as for StartBundle.
func (s *Supervisor) ValidateBundle(ctx context.Context, dir string, base *spec.Request) (*shimapi.BundleReport, error) {
	call := &shimv1.BundleRequest{Action: shimapi.BundleLoad, Dir: dir, Request: base.Encode()}
	var command []string
	var refused error
	document, err := s.bundleCall(ctx, nil, call)
	if err == nil {
		req, err := spec.DecodeResolved(document)
		if err != nil {
			return nil, err
		}
		command = req.Command
		if p := s.policy.Load(); p != nil {
			refused = p.Check(uint32(os.Geteuid()), req)
		}
	}
	call.Action = shimapi.BundleValidate
	if document, err = s.bundleCall(ctx, command, call); err != nil {
		return nil, err
	}
	r := new(shimapi.BundleReport)
	if err := json.Unmarshal(document, r); err != nil {
		return nil, fault.Wrap(fault.StateUnreadable, "read report", err)
	}
	if refused != nil {
		f := fault.From(refused, fault.NotAuthorised)
		r.Valid = false
		r.Problems = append(r.Problems, shimapi.BundleProblem{Code: string(f.Code), Message: f.Message(), Hint: f.Remedy()})
	}
	return r, nil
}

// DiffBundles gives the differences of two bundles as a JSON list.
func (s *Supervisor) DiffBundles(ctx context.Context, a, b string) ([]byte, error) {
	return s.bundleCall(ctx, nil, &shimv1.BundleRequest{Action: shimapi.BundleDiff, Dir: a, Other: b})
}

// WriteBundle makes a bundle of a request in dir, which must not exist or be empty,
// that other OCI runtimes understand. id is the execution that the request is from;
// empty: none.
func (s *Supervisor) WriteBundle(ctx context.Context, req *spec.Request, dir, id string) error {
	if p := s.policy.Load(); p != nil { // nothing is run, so nothing is written down
		if err := p.Check(uint32(os.Geteuid()), req); err != nil {
			return err
		}
	}
	_, err := s.bundleCall(ctx, req.Command, &shimv1.BundleRequest{Action: shimapi.BundleWrite, Request: req.Encode(), Other: dir, ExecutionId: id})
	return err
}

// ProbeBundle makes in to, an empty directory, a bundle that prints how the sandbox of the
// one in dir looks inside, and gives the paths that it masks.
func (s *Supervisor) ProbeBundle(ctx context.Context, dir, to string) (masked []string, err error) {
	document, err := s.bundleCall(ctx, nil, &shimv1.BundleRequest{Action: shimapi.BundleProbe, Dir: dir, Other: to})
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(document, &masked); err != nil {
		return nil, fault.Wrap(fault.StateUnreadable, "read masked paths", err)
	}
	return masked, nil
}

// bundleCall asks a shim, which runs nothing.
func (s *Supervisor) bundleCall(ctx context.Context, command []string, r *shimv1.BundleRequest) ([]byte, error) {
	id, err := executionID("")
	if err != nil {
		return nil, err
	}
	e, err := s.spawn(id, command, nil, Streams{})
	if err != nil {
		return nil, err
	}
	defer e.process.wait()
	defer e.client.Close()
	answer, err := e.shim.Bundle(ctx, r)
	if err != nil {
		return nil, fault.Wrap(fault.Unreachable, "ask capsule-shim", err)
	}
	if len(answer.Error) == 0 {
		return answer.Document, nil
	}
	refused, err := spec.DecodeResponse(answer.Error)
	if err != nil || refused.Error == nil {
		return nil, fault.Wrap(fault.Unreachable, "ask capsule-shim", err)
	}
	return nil, fromWire(refused.Error)
}
