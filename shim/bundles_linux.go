package shim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/shim/bundle"
	"github.com/capsule-run/capsule/shim/host"
	"github.com/capsule-run/capsule/shim/inside"
	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// Bundle is the call of shim.proto; refusal is the error of an ExecutionResponse.
func (s *service) Bundle(r *bundleRequest) (document, refusal []byte) {
	document, err := bundles(s.e.boot, r)
	if err != nil {
		return nil, refused(err)
	}
	return document, nil
}

// bundles does what a call of Bundle asks for.
func bundles(b shimapi.Bootstrap, r *bundleRequest) ([]byte, error) {
	var base *spec.Request
	if len(r.request) > 0 {
		var err error
		if base, err = spec.DecodeResolved(r.request); err != nil {
			return nil, err
		}
	} else {
		base = spec.Default()
	}
	switch r.action {
	case shimapi.BundleLoad:
		f, err := loadBundle(r.dir, base)
		if err != nil {
			return nil, err
		}
		return f.request.Encode(), nil
	case shimapi.BundleValidate:
		return encoded(validate(b, r.dir, base))
	case shimapi.BundleDiff:
		return diff(r.dir, r.other)
	case shimapi.BundleWrite:
		return []byte("{}"), write(b, base, r.other, r.executionID)
	case shimapi.BundleProbe:
		return probe(r.dir, r.other)
	}
	return nil, fault.New(fault.InvalidValue, "bundle", "unknown action "+r.action)
}

func encoded(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fault.Wrap(fault.IO, "encode", err)
	}
	return b.Bytes(), nil
}

func diff(a, b string) ([]byte, error) {
	one, err := bundle.Load(a)
	if err != nil {
		return nil, bundle.Pointed(err)
	}
	other, err := bundle.Load(b)
	if err != nil {
		return nil, bundle.Pointed(err)
	}
	list, err := bundle.Diff(one, other)
	if err != nil {
		return nil, err
	}
	if list == nil {
		list = []bundle.Difference{}
	}
	return encoded(list)
}

// validate goes the way of an execution as far as nothing runs: it resolves,
// compiles, and makes the control group, which alone shows what the host grants.
func validate(b shimapi.Bootstrap, dir string, base *spec.Request) *shimapi.BundleReport {
	report := &shimapi.BundleReport{Bundle: dir, Problems: []shimapi.BundleProblem{}, Warnings: []string{}, Walls: []string{}}
	f, err := loadBundle(dir, base)
	if err != nil {
		addProblems(report, err)
		return report
	}
	t, err := f.translate(b)
	if t.slot != nil {
		defer t.slot.Close() // nothing runs under these ids
	}
	addProblems(report, err)
	report.Warnings = append(report.Warnings, t.warnings...)
	if err != nil && f.config.Linux.Seccomp != nil && len(t.filter) == 0 {
		t.filter = make([]byte, 8) // so that the plan tells what else is wrong
	}
	if !f.confined {
		// It was refused before capsule added its walls, whose lack is no fault of it.
		bundle.Confine(f.config, bundle.Place{SlotBase: 1 << 16})
	}
	p, compileErr := t.compile(dir, 0)
	addProblems(report, compileErr)
	if compileErr == nil {
		report.Walls, report.Steps = append(report.Walls, p.Walls...), len(p.Setup)+len(p.Payload)+len(p.Init)
	}
	addProblems(report, bundle.Pointed(f.grantable(b)))
	report.Valid = len(report.Problems) == 0
	return report
}

// grantable makes the control group, and takes it away again.
func (f *foreign) grantable(b shimapi.Bootstrap) error {
	e := newExecution(b)
	e.req, e.boundless = f.request, boundless(f.config)
	if err := e.control(f.config); err != nil || e.group == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), teardownTime)
	defer cancel()
	return e.group.Remove(ctx)
}

// addProblems adds every fault of err once.
func addProblems(r *shimapi.BundleReport, err error) {
	if err == nil {
		return
	}
	var list fault.List
	if !errors.As(err, &list) {
		list = fault.List{fault.From(err, fault.InvalidBundle)}
	}
	for _, f := range list {
		p := shimapi.BundleProblem{Code: string(f.Code), Pointer: f.Field, Message: f.Message(), Hint: f.Remedy()}
		if !slices.Contains(r.Problems, p) {
			r.Problems = append(r.Problems, p)
		}
	}
}

// write makes a portable bundle of a request.
func write(b shimapi.Bootstrap, req *spec.Request, dir, id string) error {
	if req.Isolation.Backend == spec.BackendProcess {
		return fault.New(fault.Unsupported, "write bundle", "the process backend has no sandbox that a bundle could describe").WithField("/isolation/backend")
	}
	t, err := translate(b, req, nil)
	if t.slot != nil {
		defer t.slot.Close() // nothing runs under these ids
	}
	if err != nil {
		return err
	}
	if t.object != "" {
		t.config.Linux.Seccomp = new(specs.LinuxSeccomp)
		if err := json.Unmarshal([]byte(t.object), t.config.Linux.Seccomp); err != nil {
			return fault.Wrap(fault.Seccomp, "decode filter", err)
		}
	}
	p, err := bundle.Export(t.config, t.skeleton, host.Kinds(t.config))
	if err != nil {
		return err
	}
	owner := -1
	if !t.rootless {
		owner = int(t.config.Linux.UIDMappings[0].HostID)
	}
	extra := map[string][]byte{}
	plain := *req
	if plain.Stdin != nil {
		extra["stdin"] = *plain.Stdin
		plain.Stdin = nil
	}
	extra["request.json"] = plain.Encode()
	extra["README.md"] = []byte(p.Readme(req.Stdin != nil, id))
	return p.Write(dir, host.Kinds(p.Config), owner, extra)
}

// probe makes a bundle whose command is this program, in the sandbox of another.
func probe(dir, to string) ([]byte, error) {
	s, err := bundle.Load(dir)
	if err != nil {
		return nil, bundle.Pointed(err)
	}
	if s.Process == nil || s.Root == nil {
		return nil, fault.New(fault.InvalidBundle, "read bundle", "process and root are required").WithField("/process")
	}
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil, fault.Wrap(fault.IO, "find capsule-shim", err)
	}
	s.Root.Path = bundle.RootPath(s, dir)
	for i := range s.Mounts {
		if m := &s.Mounts[i]; bundle.IsBind(m) && !path.IsAbs(m.Source) {
			m.Source = path.Join(dir, m.Source)
		}
	}
	masked := []string{}
	if s.Linux != nil {
		masked = append(masked, s.Linux.MaskedPaths...)
	}
	document, err := encoded(masked)
	if err != nil {
		return nil, err
	}
	s.Process.Args = []string{probePath, inside.Argument}
	s.Mounts = append(s.Mounts, specs.Mount{Destination: probePath, Type: "bind", Source: self, Options: []string{"bind", "ro", "nosuid", "nodev"}})
	return document, bundle.Write(to, s)
}

// probePath is where this program is in the sandbox that it looks at.
const probePath = "/.capsule-probe"
