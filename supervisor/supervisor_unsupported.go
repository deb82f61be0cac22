//go:build !linux

package supervisor

import (
	"context"
	"io"
	"runtime"
	"syscall"

	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/policy"
)

// unsupported is the answer of everything here: sandboxes and the processes that
// keep them are Linux's.
func unsupported(op string) *fault.Fault {
	return fault.New(fault.Unsupported, op, "sandboxes need Linux; this is "+runtime.GOOS)
}

// Options are as on Linux.
type Options struct {
	StateDir, ShimPath string
	Policy             *policy.Policy
	CgroupBeside       bool
	Warn               func(message string)
}

// Streams are the caller's ends.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Supervisor is never made on this system.
type Supervisor struct{}

// New is E2008 on this system.
func New(Options) (*Supervisor, error) { return nil, unsupported("start supervisor") }

// FindShim is E2008 on this system.
func FindShim() (string, error) { return "", unsupported("find capsule-shim") }

// As is as on Linux.
func (*Supervisor) As(uint32) api.Supervisor { return nil }

// Close is as on Linux.
func (*Supervisor) Close() error { return nil }

// Start is E2008 on this system.
func (*Supervisor) Start(context.Context, *spec.Request, string, Streams) (*Execution, error) {
	return nil, unsupported("start execution")
}

// Explain is E2008 on this system.
func (*Supervisor) Explain(context.Context, *spec.Request) (string, error) {
	return "", unsupported("explain")
}

// ExplainBundle is E2008 on this system.
func (*Supervisor) ExplainBundle(context.Context, string) (string, error) {
	return "", unsupported("explain")
}

// StartBundle is E2008 on this system.
func (*Supervisor) StartBundle(context.Context, string, *spec.Request, string, Streams) (*Execution, *spec.Request, error) {
	return nil, nil, unsupported("run bundle")
}

// ValidateBundle is E2008 on this system.
func (*Supervisor) ValidateBundle(context.Context, string, *spec.Request) (*shimapi.BundleReport, error) {
	return nil, unsupported("validate bundle")
}

// DiffBundles is E2008 on this system.
func (*Supervisor) DiffBundles(context.Context, string, string) ([]byte, error) {
	return nil, unsupported("compare bundles")
}

// WriteBundle is E2008 on this system.
func (*Supervisor) WriteBundle(context.Context, *spec.Request, string, string) error {
	return unsupported("write bundle")
}

// ProbeBundle is E2008 on this system.
func (*Supervisor) ProbeBundle(context.Context, string, string) ([]string, error) {
	return nil, unsupported("probe bundle")
}

// Execution is never made on this system.
type Execution struct{}

// Kill is E2008 on this system.
func (*Execution) Kill(syscall.Signal, bool) error { return unsupported("signal the execution") }

// Wait is E2008 on this system.
func (*Execution) Wait() *spec.Response {
	return &spec.Response{Error: spec.ErrorFrom(unsupported("wait"))}
}
