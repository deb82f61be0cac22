package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/supervisor"
	"github.com/capsule-run/capsule/supervisor/api"
)

// pooled is a daemon that prepares sandboxes.
func (h *house) pooled(size int) *supervisor.Supervisor {
	h.Helper()
	s, err := supervisor.NewDaemon(supervisor.DaemonOptions{Options: h.options(), Pool: supervisor.PoolLimits{Size: size, Idle: time.Hour}})
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() {
		// What has ended is in the history then, and not in a directory.
		if err := errors.Join(s.Drain(h.ctx), s.Close()); err != nil {
			h.Error(err)
		}
	})
	return s
}

// mounts is a descriptor by which changed tells of changes to the mounts of this
// namespace since the last call.
func (h *house) mounts() int {
	h.Helper()
	fd, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { unix.Close(fd) })
	return fd
}

func changed(mounts int) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(mounts), Events: unix.POLLPRI}}, 0)
	return n != 0 || err != nil
}

// awaitPool waits until the pool has a sandbox.
func (h *house) awaitPool(s *supervisor.Supervisor) {
	h.Helper()
	for s.PoolStats().Ready == 0 {
		if h.ctx.Err() != nil {
			h.Fatalf("no sandbox is prepared: %+v", s.PoolStats())
		}
		time.Sleep(time.Millisecond) // what is prepared sends no event
	}
}

// wasReady tells whether a prepared sandbox ran the command.
func wasReady(r *spec.Response) bool {
	_, ok := r.Metrics.StartupPhases["release"]
	return ok
}

// TestPreparedSandbox: whatever a request says, its verdict is the same whether a
// sandbox was ready or not; and those that can use one do.
func TestPreparedSandbox(t *testing.T) {
	plain := openHouse(t).pooled(0).As(uint32(os.Geteuid()))
	h := openHouse(t) // second, so that its pool is gone when the first looks what is left
	pool := h.pooled(1)
	me := pool.As(uint32(os.Geteuid()))
	mounts := h.mounts()
	show := "id; pwd; env | sort; cat /proc/self/limits; grep -E 'Cap|NoNew|Seccomp:' /proc/self/status; cat; stat -L -c %t:%T /dev/stdin; df -P /tmp /workspace | tail -2; cat /etc/hostname; ls /proc/self/fd; exit 3"
	for name, tc := range map[string]struct {
		change func(*spec.Request)
		ready  bool
	}{
		"defaults":    {func(*spec.Request) {}, true},
		"environment": {func(r *spec.Request) { r.Environment = map[string]string{"A": "b", "PATH": "/usr/bin:/bin"} }, true},
		"stdin":       {func(r *spec.Request) { in := spec.Bytes("from the request\n"); r.Stdin = &in }, true},
		"more memory": {func(r *spec.Request) { r.Resources.MemoryBytes = 512 << 20 }, true},
		"less memory": {func(r *spec.Request) { r.Resources.MemoryBytes = 200 << 20 }, false}, // and smaller file systems
		"processes":   {func(r *spec.Request) { r.Resources.MaxPids = 20 }, true},
		"shares":      {func(r *spec.Request) { r.Resources.CPUShares = 100 }, true},
		"quota":       {func(r *spec.Request) { q := 0.5; r.Resources.CPUQuota = &q }, true},
		"output":      {func(r *spec.Request) { r.Resources.MaxOutputBytes = 10 }, true},
		"not found":   {func(r *spec.Request) { r.Command = []string{"no-such-command"} }, true},
		"directory":   {func(r *spec.Request) { r.Isolation.WorkingDirectory = "/tmp" }, false},
		"user":        {func(r *spec.Request) { r.Isolation.User = "7:7" }, false},
		"hostname":    {func(r *spec.Request) { r.Isolation.Hostname = "other" }, false},
		"disk":        {func(r *spec.Request) { r.Resources.DiskBytes = 1 << 20 }, false},
		"filter":      {func(r *spec.Request) { r.Isolation.Seccomp.Name = spec.SeccompNetwork }, false},
		"no init":     {func(r *spec.Request) { r.Isolation.Init = false }, false},
		"bind":        {func(r *spec.Request) { r.Isolation.ReadonlyPaths = []string{scratch()} }, false},
	} {
		t.Run(name, func(t *testing.T) {
			req := spec.Default()
			req.Command = []string{"sh", "-c", show}
			tc.change(req)
			if os.Geteuid() != 0 && name == "user" {
				return // the caller's id is the only one there
			}
			run := func(s api.Supervisor) *spec.Response {
				started, err := s.Start(h.ctx, &api.StartRequest{Request: req.Encode()})
				if err != nil {
					t.Fatal(err)
				}
				h.ids = append(h.ids, started.ID)
				return h.wait(s, started.ID)
			}
			got := [2]*spec.Response{nil, run(plain)}
			for again := true; again; {
				h.awaitPool(pool)
				got[0] = run(me)
				// Another test that mounted something since the last time has made it stale.
				again = changed(mounts) && !wasReady(got[0])
			}
			if wasReady(got[1]) {
				t.Fatal("there was a sandbox ready that nobody wanted")
			}
			if wasReady(got[0]) != (tc.ready && got[0].Metrics.StartupUS != nil) {
				t.Errorf("a prepared sandbox: %v, want %v", wasReady(got[0]), tc.ready)
			}
			same(t, got[0], got[1])
		})
	}
	if p := pool.PoolStats(); p.Failed > 0 || p.Misses > 0 {
		t.Errorf("%+v", p)
	}
}

// same compares what two runs of one command must have in common.
func same(t *testing.T, a, b *spec.Response) {
	t.Helper()
	if a.Status != b.Status || a.Termination != b.Termination || !reflect.DeepEqual(a.ExitCode, b.ExitCode) || !reflect.DeepEqual(a.Enforcement, b.Enforcement) ||
		!slices.Equal(a.Warnings, b.Warnings) || !reflect.DeepEqual(a.Output, b.Output) {
		t.Errorf("the verdicts differ:\n%s\n%s", a.Encode(true), b.Encode(true))
	}
	if out, other := stdoutOf(t, a), stdoutOf(t, b); out != other {
		t.Errorf("the output differs:\n%s\n%s", out, other)
	}
	if (a.Error == nil) != (b.Error == nil) || a.Error != nil && (a.Error.Code != b.Error.Code || a.Error.Message != b.Error.Message) {
		t.Errorf("the errors differ: %v, %v", a.Error, b.Error)
	}
}

// TestPreparedSandboxThatDied: an execution that was to have it gets another.
func TestPreparedSandboxThatDied(t *testing.T) {
	h := openHouse(t)
	pool := h.pooled(1)
	me := pool.As(uint32(os.Geteuid()))
	h.awaitPool(pool)
	for _, pid := range h.waitingShims() {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	r := h.wait(me, h.start(me, &api.StartRequest{}, "echo", "alive").ID)
	// The kernel may not have closed its connection yet: then the execution is
	// lost, and told so.
	if r.Termination.Reason == spec.ReasonShimLost {
		r = h.wait(me, h.start(me, &api.StartRequest{}, "echo", "alive").ID)
	}
	if stdoutOf(t, r) != "alive\n" || wasReady(r) {
		t.Errorf("got %s", r.Encode(true))
	}
}

// waitingShims are the shims of this house.
func (h *house) waitingShims() (pids []int) {
	h.Helper()
	for _, c := range living() {
		if c.name == "capsule-shim" && c.state != "Z" {
			pids = append(pids, c.pid)
		}
	}
	if len(pids) == 0 {
		h.Fatal("no shim waits")
	}
	return pids
}

// TestPreparedSandboxOfAnotherHost: when what a sandbox shows of the host is no
// longer there, it is not used.
func TestPreparedSandboxOfAnotherHost(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount")
	}
	h := openHouse(t)
	pool := h.pooled(1)
	me := pool.As(uint32(os.Geteuid()))
	h.awaitPool(pool)
	// A mount in the namespace of the shims, at a place of our own.
	place := filepath.Join(scratch(), "mounted")
	if err := os.Mkdir(place, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("capsule-e2e", place, "tmpfs", 0, "size=4k"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(unix.Unmount(place, 0), os.Remove(place)); err != nil {
			t.Error(err)
		}
	}()
	if r := h.wait(me, h.start(me, &api.StartRequest{}, "true").ID); wasReady(r) || r.Status != spec.StatusSuccess {
		t.Errorf("got %s", r.Encode(true))
	}
}

// TestPoolFollowsDemand: a request that finds none makes the pool grow within its
// bound, and nothing is left when the daemon closes.
func TestPoolFollowsDemand(t *testing.T) {
	h := openHouse(t)
	pool := h.pooled(3)
	me := pool.As(uint32(os.Geteuid()))
	var ids []string
	for range 12 {
		ids = append(ids, h.start(me, &api.StartRequest{}, "true").ID)
	}
	for _, id := range ids {
		if r := h.wait(me, id); r.Status != spec.StatusSuccess {
			t.Errorf("got %s", r.Encode(true))
		}
	}
	for pool.PoolStats().Ready != 3 {
		if h.ctx.Err() != nil {
			t.Fatalf("%+v", pool.PoolStats())
		}
		time.Sleep(time.Millisecond) // what is prepared sends no event
	}
}
