package shim

import (
	"os"
	"reflect"
	"slices"
	"testing"

	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/shim/bundle"
	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/spec"
)

// modelled is a spare with the model of a request, and what it was made by.
func modelled(t *testing.T, change func(*spec.Request)) (*spare, shimapi.Bootstrap) {
	t.Helper()
	state := layout.State(t.TempDir())
	if err := os.MkdirAll(state.Executions(), 0o700); err != nil {
		t.Fatal(err)
	}
	rules := &shimapi.Policy{AnyCommand: true, AllowUnconfined: true, Readable: []string{"/"}, Hash: "a"}
	boot := shimapi.Bootstrap{StateDir: state, ExecutionID: "0b3c7a52-8a55-4b1e-9a57-2f6c0d6f9d11", Policy: rules, Template: true}
	s := &spare{name: "some"}
	req := unfiltered(t, change)
	made, err := translate(boot, req, s)
	if err != nil {
		t.Fatal(err)
	}
	if s.slot, s.base = made.slot, made.base; s.slot != nil {
		t.Cleanup(func() { _ = s.slot.Close() })
	}
	s.remember(boot, req, made)
	s.origin = made.origin(s.bundle, 0)
	if s.plan, err = made.compileFrom(s.origin); err != nil {
		t.Fatal(err)
	}
	boot.ExecutionID, boot.Template = "1b3c7a52-8a55-4b1e-9a57-2f6c0d6f9d12", false
	return s, boot
}

// unfiltered is a resolved request without a filter, which would have to be compiled.
func unfiltered(t *testing.T, change func(*spec.Request)) *spec.Request {
	t.Helper()
	r := spec.Default()
	r.Command, r.Isolation.Seccomp.Name = []string{"true"}, spec.SeccompUnconfined
	change(r)
	r.Complete()
	req, err := spec.DecodeResolved(r.Encode())
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// TestRepeat: a translation and a plan that repeat a model are what they would be without one,
// and no request repeats it that makes another sandbox.
func TestRepeat(t *testing.T) {
	dir, link := t.TempDir(), t.TempDir()+"/link"
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	testRepeat(t, func(*spec.Request) {})
	testRepeat(t, func(r *spec.Request) {
		r.Isolation.ReadonlyPaths, r.Isolation.Network = append(r.Isolation.ReadonlyPaths, link), true
		r.Isolation.AllowDegraded = append(r.Isolation.AllowDegraded, spec.WallIDMap)
	})
}

func testRepeat(t *testing.T, base func(*spec.Request)) {
	s, boot := modelled(t, base)
	unmodelled := *s
	unmodelled.model = nil
	other, number, share := t.TempDir(), int64(7), 0.5
	for name, tc := range map[string]struct {
		change  func(*spec.Request)
		repeats bool
	}{
		"nothing":     {func(*spec.Request) {}, true},
		"command":     {func(r *spec.Request) { r.Command = []string{"sh", "-c", "exit 3"} }, true},
		"environment": {func(r *spec.Request) { r.Environment = map[string]string{"PATH": "/bin", "A": "b"} }, true},
		"stdin":       {func(r *spec.Request) { in := spec.Bytes("x"); r.Stdin = &in }, true},
		"labels":      {func(r *spec.Request) { r.Labels = map[string]string{"a": "b"} }, true},
		"times":       {func(r *spec.Request) { r.TimeoutMS, r.GraceMS = 7, 7 }, true},
		"shares":      {func(r *spec.Request) { r.Resources.CPUShares = 7 }, true},
		"quota":       {func(r *spec.Request) { r.Resources.CPUQuota = &share }, true},
		"cpu time":    {func(r *spec.Request) { r.Resources.CPUTimeMS = &number }, true},
		"processes":   {func(r *spec.Request) { r.Resources.MaxPids = 7 }, true},
		"output":      {func(r *spec.Request) { r.Resources.MaxOutputBytes, r.Resources.OutputPolicy = 7, spec.OutputTail }, true},
		"asked":       {func(r *spec.Request) { r.Isolation.Require = []string{spec.LimitMemory} }, true},
		"less files":  {func(r *spec.Request) { r.Resources.Rlimits = map[string]spec.Rlimit{"nofile": {Soft: 64, Hard: 64}} }, false},
		"few files":   {func(r *spec.Request) { r.Resources.Rlimits = map[string]spec.Rlimit{"nofile": {Soft: 8, Hard: 8}} }, false},
		"another": {func(r *spec.Request) {
			r.Resources.Rlimits = map[string]spec.Rlimit{"stack": {Soft: 1 << 20, Hard: 1 << 20}}
		}, false},
		"memory":       {func(r *spec.Request) { r.Resources.MemoryBytes = 512 << 20 }, false},
		"disk":         {func(r *spec.Request) { r.Resources.DiskBytes = 1 << 20 }, false},
		"network":      {func(r *spec.Request) { r.Isolation.Network = !r.Isolation.Network }, false},
		"bind":         {func(r *spec.Request) { r.Isolation.ReadonlyPaths = append(r.Isolation.ReadonlyPaths, other) }, false},
		"directory":    {func(r *spec.Request) { r.Isolation.WorkingDirectory = "/tmp" }, false},
		"user":         {func(r *spec.Request) { r.Isolation.User = "7:7" }, false},
		"hostname":     {func(r *spec.Request) { r.Isolation.Hostname = "other" }, false},
		"degraded":     {func(r *spec.Request) { r.Isolation.AllowDegraded = append(r.Isolation.AllowDegraded, spec.WallSeccomp) }, false},
		"init":         {func(r *spec.Request) { r.Isolation.Init = false }, false},
		"landlock too": {func(r *spec.Request) { r.Isolation.Require = []string{spec.WallLandlock} }, false},
	} {
		t.Run(name, func(t *testing.T) {
			change := func(r *spec.Request) { base(r); tc.change(r) }
			got, err := translate(boot, unfiltered(t, change), s)
			want, wantErr := translate(boot, unfiltered(t, change), &unmodelled)
			if err != nil || wantErr != nil {
				if name != "landlock too" || err == nil || wantErr == nil { // where it is not all that it can be
					t.Fatal(err, wantErr)
				}
				return
			}
			if got.repeated != tc.repeats || want.repeated {
				t.Errorf("repeated: %v, want %v", got.repeated, tc.repeats)
			}
			p, err := s.replan(got)
			if err != nil || got.repeated && p == nil {
				t.Fatal(p, err)
			}
			if q, err := plan.Compile(want.config, want.origin(s.bundle, 0).Facts); err != nil || p != nil && !reflect.DeepEqual(p, q) {
				t.Errorf("another plan: %v\n%+v\n%+v", err, p, q)
			}
			got.repeated, got.probed = false, want.probed // which are the model's
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v\nwant %+v", got, want)
			}
		})
	}
}

// TestRepeatAsksTheHost: what the host or its policy says anew is heard.
func TestRepeatAsksTheHost(t *testing.T) {
	for name, tc := range map[string]struct {
		change  func(*model, *shimapi.Policy)
		repeats bool
	}{
		"nothing":     {func(*model, *shimapi.Policy) {}, true},
		"a directory": {func(m *model, _ *shimapi.Policy) { m.facts.Host.System = m.facts.Host.System[1:] }, false},
		"a configuration": {func(m *model, _ *shimapi.Policy) {
			m.facts.Host.Etc = append(m.facts.Host.Etc, bundle.Entry{Path: "/etc/x"})
		}, false},
		"another policy": {func(_ *model, p *shimapi.Policy) { p.Hash = "b" }, true},
		"a command":      {func(_ *model, p *shimapi.Policy) { p.Blocked = []string{"no-such-program"} }, false},
		"commands":       {func(_ *model, p *shimapi.Policy) { p.AnyCommand, p.Matched = false, true }, false},
	} {
		t.Run(name, func(t *testing.T) {
			s, boot := modelled(t, func(*spec.Request) {})
			rules := *boot.Policy
			boot.Policy = &rules
			tc.change(s.model, &rules)
			got, err := translate(boot, unfiltered(t, func(*spec.Request) {}), s)
			if err != nil {
				t.Fatal(err)
			}
			if got.repeated != tc.repeats {
				t.Errorf("repeated: %v, want %v", got.repeated, tc.repeats)
			}
		})
	}
	s, boot := modelled(t, func(*spec.Request) {})
	boot.Policy = &shimapi.Policy{AnyCommand: true}
	if got, err := translate(boot, unfiltered(t, func(*spec.Request) {}), s); err == nil || got.repeated {
		t.Error("no filter for whom policy allows none")
	}
}

// TestRepeatTellsWhatIsMissing: a warning of the walls comes with each execution that has them.
func TestRepeatTellsWhatIsMissing(t *testing.T) {
	s, boot := modelled(t, func(*spec.Request) {})
	s.model.made.lasting = []string{"this kernel lacks a wall"}
	got, err := translate(boot, unfiltered(t, func(*spec.Request) {}), s)
	if err != nil || !got.repeated || !slices.Equal(got.warnings, s.model.made.lasting) {
		t.Errorf("%v, %+v", err, got)
	}
}

// TestRepeatSeesWhatAModuleBrings: what has to be masked and was not there when the sandbox was built.
func TestRepeatSeesWhatAModuleBrings(t *testing.T) {
	s, boot := modelled(t, func(*spec.Request) {})
	got, err := translate(boot, unfiltered(t, func(*spec.Request) {}), s)
	if err != nil || !got.repeated {
		t.Fatal(err)
	}
	s.origin.Facts.Kinds["/proc/interrupts"] = plan.KindMissing
	if p, err := s.replan(got); p != nil || err != nil {
		t.Errorf("a sandbox without the mask is used: %v", err)
	}
}
