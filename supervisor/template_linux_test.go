package supervisor

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec"
)

// TestPattern: what is decided after a sandbox is built does not tell two requests
// apart, and everything else does. e2e's TestPreparedSandbox has the same list, run.
func TestPattern(t *testing.T) {
	number, share, input, root := int64(7), 0.5, spec.Bytes("SECRET"), "/srv"
	usual := patternOf(request(func(*spec.Request) {}))
	for name, change := range map[string]func(*spec.Request){
		"command":     func(r *spec.Request) { r.Command = []string{"false", "x"} },
		"environment": func(r *spec.Request) { r.Environment = map[string]string{"A": "b"} },
		"stdin":       func(r *spec.Request) { r.Stdin = &input },
		"labels":      func(r *spec.Request) { r.Labels = map[string]string{"a": "b"} },
		"timeout":     func(r *spec.Request) { r.TimeoutMS, r.GraceMS = 7, 7 },
		"shares":      func(r *spec.Request) { r.Resources.CPUShares = 7 },
		"quota":       func(r *spec.Request) { r.Resources.CPUQuota = &share },
		"cpu time":    func(r *spec.Request) { r.Resources.CPUTimeMS = &number },
		"processes":   func(r *spec.Request) { r.Resources.MaxPids = 7 },
		"output":      func(r *spec.Request) { r.Resources.MaxOutputBytes, r.Resources.OutputPolicy = 7, spec.OutputKill },
		"require":     func(r *spec.Request) { r.Isolation.Require = []string{spec.LimitMemory} },
	} {
		if patternOf(request(change)) != usual {
			t.Errorf("%s: another pattern", name)
		}
	}
	for name, change := range map[string]func(*spec.Request){
		"memory":    func(r *spec.Request) { r.Resources.MemoryBytes = 7 << 20 },
		"disk":      func(r *spec.Request) { r.Resources.DiskBytes = 7 << 20 },
		"io":        func(r *spec.Request) { r.Resources.IO = &spec.IOLimits{ReadBytesPerSecond: &number} },
		"rlimits":   func(r *spec.Request) { r.Resources.Rlimits = map[string]spec.Rlimit{"nofile": {Soft: 7, Hard: 7}} },
		"backend":   func(r *spec.Request) { r.Isolation.Backend = spec.BackendProcess },
		"network":   func(r *spec.Request) { r.Isolation.Network = true },
		"readonly":  func(r *spec.Request) { r.Isolation.ReadonlyPaths = []string{"/srv"} },
		"writable":  func(r *spec.Request) { r.Isolation.WritablePaths = []string{"/srv"} },
		"binds":     func(r *spec.Request) { r.Isolation.BindMounts = []spec.BindMount{{Source: "/srv", Destination: "/x"}} },
		"directory": func(r *spec.Request) { r.Isolation.WorkingDirectory = "/tmp" },
		"rootfs":    func(r *spec.Request) { r.Isolation.Rootfs = &root },
		"user":      func(r *spec.Request) { r.Isolation.User = "7" },
		"hostname":  func(r *spec.Request) { r.Isolation.Hostname = "other" },
		"seccomp":   func(r *spec.Request) { r.Isolation.Seccomp.Name = spec.SeccompNetwork },
		"degraded":  func(r *spec.Request) { r.Isolation.AllowDegraded = []string{"seccomp"} },
		"init":      func(r *spec.Request) { r.Isolation.Init = false },
	} {
		if patternOf(request(change)) == usual {
			t.Errorf("%s: the same pattern", name)
		}
	}
	secret := request(func(r *spec.Request) {
		r.Command, r.Environment, r.Stdin = []string{"SECRET"}, map[string]string{"A": "SECRET"}, &input
		r.Labels = map[string]string{"a": "SECRET"}
	})
	// A group keeps a quota that a later execution does not have.
	if got := bare(request(func(r *spec.Request) { r.Resources.CPUQuota, r.Resources.CPUTimeMS = &share, &number })); got.Resources.CPUQuota != nil || got.Resources.CPUTimeMS != nil {
		t.Error("a template bounds the processor")
	}
	if got := bare(secret).Encode(); bytes.Contains(got, []byte("SECRET")) {
		t.Errorf("a template has what belongs to a command: %s", got)
	}
}

func request(change func(*spec.Request)) *spec.Request {
	r := spec.Default()
	r.Command = []string{"true"}
	change(r)
	r.Complete()
	return r
}

// TestPoolShares: templates share the pool by demand: one that is in use is not robbed,
// one that nobody asked for is, and of too many the oldest goes.
func TestPoolShares(t *testing.T) {
	p := newPool(&Supervisor{}, PoolLimits{})
	p.limits.Size = 4
	usual := p.usual()
	usual.want = 4
	a := p.learn(0, request(func(*spec.Request) {}), pattern{1})
	p.grow(a)
	if a.want != 0 || usual.want != 4 {
		t.Errorf("robbed at once: %d of the usual, %d of the new", usual.want, a.want)
	}
	usual.asked = usual.asked.Add(-2 * robbable)
	for want := range 3 {
		p.grow(a)
		if a.want != 1<<want || usual.want != 4-a.want {
			t.Errorf("%d of the usual, %d of the new, want %d", usual.want, a.want, 1<<want)
		}
	}
	for n := range 2 * templatesMost {
		p.learn(0, request(func(*spec.Request) {}), pattern{2, byte(n)})
	}
	if len(p.templates) != templatesMost || p.usual() != usual {
		t.Errorf("%d templates", len(p.templates))
	}
	for n := range 2 * keysMost {
		p.note(pattern{3, byte(n), byte(n >> 8)}, knownUnfit)
	}
	if len(p.keys) > keysMost {
		t.Errorf("%d keys", len(p.keys))
	}
}

// TestUnfitOfOne: a caller whose requests never fit gets none of the sandboxes that
// are ready, and all others get them as before.
func TestUnfitOfOne(t *testing.T) {
	program := filepath.Join(t.TempDir(), "shim")
	if err := os.WriteFile(program, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := newPool(&Supervisor{shim: program}, PoolLimits{})
	p.limits, p.usual().want = PoolLimits{Size: 1, Idle: time.Hour}, 1
	asked := int64(0)
	// take asks for a sandbox of a kind that was never asked for, and a usual one is ready.
	take := func(caller uint32) *ready {
		asked++
		req := request(func(r *spec.Request) { r.Resources.MemoryBytes += asked << 20 })
		r := &ready{of: p.usual()}
		if err := unix.Stat(program, &r.program); err != nil {
			t.Fatal(err)
		}
		p.usual().ready = []*ready{r}
		return p.take(caller, req)
	}
	const wasteful, other = 1000, 1001
	for n := range unfitInARow {
		r := take(wasteful)
		if r == nil {
			t.Fatalf("after %d that did not fit the caller gets none", n)
		}
		p.used(r, false, false) // it was refused, which says nothing
		p.used(r, false, true)
	}
	if take(wasteful) != nil {
		t.Error("the caller still gets one")
	}
	r := take(other)
	if r == nil {
		t.Fatal("another caller gets none")
	}
	p.used(r, true, false)
	if !p.usual().lacks(time.Now()) {
		t.Error("the next one is not prepared")
	}
	if p.usual().vain[wasteful].until = time.Now(); take(wasteful) == nil {
		t.Error("after its time the caller gets none")
	}
	for n := range uint32(2 * vainMost) {
		p.usual().wasted(n, time.Hour)
	}
	if len(p.usual().vain) > vainMost {
		t.Errorf("%d callers are remembered", len(p.usual().vain))
	}
}
