package walls

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/capsule-run/capsule/runtime/launch"
	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/runtime/seccomp"
	"github.com/capsule-run/capsule/runtime/seccomp/bpf"
	"github.com/capsule-run/capsule/shim/bundle"
	"github.com/capsule-run/capsule/shim/host"
	"github.com/capsule-run/capsule/spec"
)

// box is a sandbox to be built, and what is to be taken out of it.
type box struct {
	request    []func(*spec.Request)
	config     []func(*specs.Spec)
	plan       []func(*plan.Plan)
	unfiltered bool     // without the system call filter
	stdin      *os.File // nil: /dev/null
	command    []string // instead of the attacker
}

// with is the box with one more wall removed.
func (b box) with(changes ...any) box {
	b.request, b.config, b.plan = slices.Clone(b.request), slices.Clone(b.config), slices.Clone(b.plan)
	for _, c := range changes {
		switch c := c.(type) {
		case func(*spec.Request):
			b.request = append(b.request, c)
		case func(*specs.Spec):
			b.config = append(b.config, c)
		case func(*plan.Plan):
			b.plan = append(b.plan, c)
		case noFilter:
			b.unfiltered = true
		default:
			panic("not a change of a box")
		}
	}
	return b
}

// noFilter takes the system call filter out.
type noFilter struct{}

// filter is the compiled default profile.
var filter = sync.OnceValues(func() ([]byte, error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	cache := seccomp.Cache{Dir: filepath.Join(scratchDir(), "seccomp"), Helper: filepath.Join(bin, "capsule-seccomp")}
	program, err := cache.Named(context.Background(), "default")
	return bpf.Plain(program), err // nobody listens here
})

// compile takes the box the way that a shim takes, up to the plan. The lock of
// the slot is released with the test.
func (b box) compile(t testing.TB, arguments ...string) *plan.Plan {
	t.Helper()
	p, err := b.tryCompile(t, arguments...)
	must(t, err)
	return p
}

// tryCompile is compile for configurations that may be refused.
func (b box) tryCompile(t testing.TB, arguments ...string) (*plan.Plan, error) {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	r := spec.Default()
	r.Command = append([]string{attackerPath, "attack"}, arguments...)
	if b.command != nil {
		r.Command = b.command
	}
	r.Isolation.BindMounts = append(r.Isolation.BindMounts, spec.BindMount{Source: exe, Destination: attackerPath, Readonly: true})
	for _, change := range b.request {
		change(r)
	}
	r.Complete()
	dir := scratch(t)
	must(t, os.Mkdir(dir+"/"+bundle.RootfsName, 0o700))
	facts, err := host.Probe(r, host.Options{StateDir: dir})
	must(t, err)
	if !facts.Host.Rootless {
		var lock *os.File
		facts.Host.SlotBase, lock, err = host.AllocateSlot(dir)
		must(t, err)
		t.Cleanup(func() { lock.Close() })
	}
	program, err := filter()
	must(t, err)
	facts.Host.Seccomp = &specs.LinuxSeccomp{}
	config, skeleton, err := bundle.BuildParts(r, facts.Host)
	must(t, err)
	for _, change := range b.config {
		change(config)
	}
	if b.unfiltered {
		config.Linux.Seccomp, program = nil, nil
	}
	p, err := plan.Compile(config, plan.Facts{Rootless: facts.Host.Rootless, BundleDir: dir, Kinds: host.Kinds(config),
		Filter: program, Skeleton: skeleton, NoInit: !r.Isolation.Init, Landlock: host.Landlock()})
	if err != nil {
		return nil, err
	}
	for _, change := range b.plan {
		change(p)
	}
	return p, nil
}

// running is a sandbox that was started.
type running struct {
	sb     *launch.Sandbox
	out    *os.File
	cancel func() bool
}

// start launches a plan. Whatever is in it dies after a minute.
func (b box) start(t testing.TB, p *plan.Plan) (*running, error) {
	t.Helper()
	r, err := b.launch(t, p)
	if err != nil {
		return nil, err
	}
	return r, r.started()
}

// launch is start without waiting for the command to run.
func (b box) launch(t testing.TB, p *plan.Plan) (*running, error) {
	t.Helper()
	stdin := b.stdin
	if stdin == nil {
		null, err := os.Open(os.DevNull)
		must(t, err)
		defer null.Close()
		stdin = null
	}
	r, w, err := os.Pipe()
	must(t, err)
	defer w.Close()
	fd := int(w.Fd())
	prepared, err := launch.Prepare(p, launch.Options{Stdin: int(stdin.Fd()), Stdout: fd, Stderr: fd, CgroupFD: -1})
	if err != nil {
		r.Close()
		return nil, err
	}
	sb, err := prepared.Start()
	if err != nil {
		r.Close()
		return nil, err
	}
	timer := time.AfterFunc(patient(time.Minute), func() { _ = sb.Kill() })
	return &running{sb, r, timer.Stop}, nil
}

// started waits until the command runs and process 1 has said so.
func (r *running) started() error {
	_, err := r.sb.Started()
	if err != nil {
		r.cancel()
		r.sb.Abandon()
		r.out.Close()
	}
	return err
}

// finish reads to the end and reaps.
func (r *running) finish(t testing.TB) string {
	t.Helper()
	defer r.out.Close()
	text, err := io.ReadAll(r.out)
	must(t, err)
	if _, err := r.sb.Exited(); err != nil {
		t.Errorf("the sandbox ended first: %v", err)
	}
	if !r.cancel() {
		t.Error("the attacker took too long")
	}
	_, err = r.sb.Reap()
	must(t, err)
	return string(text)
}

// attack runs attacks in the box and returns what each gave.
func (b box) attack(t testing.TB, names ...string) map[string]string {
	t.Helper()
	r, err := b.start(t, b.compile(t, names...))
	must(t, err)
	text := r.finish(t)
	results := map[string]string{}
	for line := range strings.Lines(text) {
		name, result, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		results[name] = result
	}
	if len(results) < len(names) {
		t.Fatalf("%d attacks gave\n%s", len(names), text)
	}
	return results
}

// expect runs attacks and compares what each gives.
func (b box) expect(t *testing.T, why string, want map[string]string) {
	t.Helper()
	names := make([]string, 0, len(want))
	for name := range want {
		names = append(names, name)
	}
	slices.Sort(names)
	got := b.attack(t, names...)
	for _, name := range names {
		if !slices.Contains(strings.Split(want[name], " or "), got[name]) {
			t.Errorf("%s: %s gives %q, want %q", why, name, got[name], want[name])
		}
	}
}

// asUser runs the command under other ids.
func asUser(ids string) func(*spec.Request) {
	return func(r *spec.Request) { r.Isolation.User = ids }
}

// dropping takes the steps out that match.
func dropping(match func(*plan.Step) bool) func(*plan.Plan) {
	return func(p *plan.Plan) {
		for _, steps := range []*[]plan.Step{&p.Setup, &p.Payload, &p.Command, &p.Init} {
			*steps = slices.DeleteFunc(*steps, func(s plan.Step) bool { return match(&s) })
		}
	}
}

// droppingOp takes every step with this call and field out. An empty field:
// whatever the field.
func droppingOp(op plan.Op, field string) func(*plan.Plan) {
	return dropping(func(s *plan.Step) bool { return s.Op == op && (field == "" || s.Field == field) })
}

// Values of prctl(2) that plans use.
const (
	prSetDumpable   = 4
	prSetNoNewPrivs = 38
)

func isPrctl(s *plan.Step, option int64) bool { return s.Op == plan.OpPrctl && s.Args[0].N == option }

// withCapabilities takes out every step that drops capabilities.
func withCapabilities(p *plan.Plan) {
	dropping(func(s *plan.Step) bool { return s.Field == "process.capabilities" })(p)
}

// withNewPrivileges takes no_new_privs out. The filter and Landlock need it, so
// they must be out as well.
func withNewPrivileges(p *plan.Plan) {
	dropping(func(s *plan.Step) bool { return isPrctl(s, prSetNoNewPrivs) })(p)
}

// sharing takes namespaces away from the clone.
func sharing(flags uint64) func(*plan.Plan) {
	return func(p *plan.Plan) { p.Clone &^= flags }
}

// withoutMount takes the mount at a destination out.
func withoutMount(destination string) func(*specs.Spec) {
	return func(s *specs.Spec) {
		s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == destination })
	}
}
