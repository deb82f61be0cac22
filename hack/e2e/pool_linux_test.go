package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/config"
	"github.com/capsule-run/capsule/supervisor/policy"
)

// pooled is a daemon that prepares sandboxes.
func (h *house) pooled(size int) *supervisor.Supervisor {
	h.Helper()
	return h.pooledUnder(nil, size)
}

func (h *house) pooledUnder(rules *policy.Policy, size int) *supervisor.Supervisor {
	h.Helper()
	options := h.options()
	options.Policy = rules
	s, err := supervisor.NewDaemon(supervisor.DaemonOptions{Options: options, Pool: supervisor.PoolLimits{Size: size, Idle: time.Hour}})
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

// awaitPool waits until the pool has n sandboxes.
func (h *house) awaitPool(s *supervisor.Supervisor, n int) {
	h.Helper()
	for s.PoolStats().Ready != n {
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
	show := "id; pwd; env | sort; cat /proc/self/limits /proc/self/timerslack_ns; grep -E 'Cap|NoNew|Seccomp:' /proc/self/status; cat; stat -L -c %t:%T /dev/stdin; df -P /tmp /workspace | tail -2; cat /etc/hostname; ls /proc/self/fd; exit 3"
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
				return h.wait(s, h.submit(s, req))
			}
			got := [2]*spec.Response{nil, run(plain)}
			h.awaitPool(pool, 1)
			if !tc.ready {
				// So many in a row that want another would make the pool rest.
				if r := h.wait(me, h.start(me, &api.StartRequest{}, "true").ID); !wasReady(r) {
					t.Errorf("got %s", r.Encode(true))
				}
				h.awaitPool(pool, 1)
			}
			got[0] = run(me)
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
	h.awaitPool(pool, 1)
	for _, pid := range h.waitingShims() {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	r := h.wait(me, h.start(me, &api.StartRequest{}, "echo", "alive").ID)
	// It may be one that the pool has made ready since: a dead one would not answer.
	if stdoutOf(t, r) != "alive\n" {
		t.Errorf("got %s", r.Encode(true))
	}
}

// TestPreparedSandboxThatDiesUnread: the shim that was given an execution is killed before it
// has read so. Nothing of the execution has begun, and another shim begins it.
func TestPreparedSandboxThatDiesUnread(t *testing.T) {
	h := openHouse(t)
	pool := h.pooled(1)
	me := pool.As(uint32(os.Geteuid()))
	h.awaitPool(pool, 1)
	shims := h.waitingShims()
	for _, pid := range shims {
		stop(t, pid)
	}
	id := h.start(me, &api.StartRequest{}, "echo", "alive").ID
	told := errors.New("it was told")
	if err := me.Events(h.ctx, 0, true, func(e api.Event) error {
		if e.Type == api.EventStarted && e.ExecutionID == id {
			return told
		}
		return nil
	}); err != told {
		t.Fatal(err)
	}
	for _, pid := range shims {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	if r := h.wait(me, id); stdoutOf(t, r) != "alive\n" || wasReady(r) {
		t.Errorf("got %s", r.Encode(true))
	}
}

// TestPreparedSandboxUnderPolicy: what may run is asked of the command alone, not
// of what stands for it while a sandbox is prepared.
func TestPreparedSandboxUnderPolicy(t *testing.T) {
	c := config.Default()
	c.Security.AllowedCommands = []string{"echo"}
	rules, err := policy.New(c)
	if err != nil {
		t.Fatal(err)
	}
	h := openHouse(t)
	pool := h.pooledUnder(rules, 1)
	h.awaitPool(pool, 1)
	me := pool.As(uint32(os.Geteuid()))
	req := spec.Default()
	req.Command = []string{"cat"}
	_, err = me.Start(h.ctx, &api.StartRequest{Request: req.Encode()})
	wantCode(t, err, fault.CommandRefused)
	if r := h.wait(me, h.start(me, &api.StartRequest{}, "echo", "allowed").ID); stdoutOf(t, r) != "allowed\n" || !wasReady(r) {
		t.Errorf("got %s", r.Encode(true))
	}
}

// TestPreparedSandboxThatIsStopped: a shim that does not hear that nobody wants it
// neither holds up the end of the daemon nor stays.
func TestPreparedSandboxThatIsStopped(t *testing.T) {
	h := openHouse(t)
	h.awaitPool(h.pooled(1), 1) // closed at the end
	for _, pid := range h.waitingShims() {
		stop(t, pid)
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

// TestPreparedSandboxWhoseInitDied: process 1 of a sandbox that waits was killed, by the
// host's OOM killer perhaps. The shim builds another.
func TestPreparedSandboxWhoseInitDied(t *testing.T) {
	h := openHouse(t)
	pool := h.pooled(1)
	me := pool.As(uint32(os.Geteuid()))
	h.awaitPool(pool, 1)
	for _, shim := range h.waitingShims() {
		children := childrenOf(t, shim)
		if len(children) == 0 {
			t.Fatal("the shim has no child")
		}
		for _, pid := range children {
			n, err := strconv.Atoi(pid)
			if err != nil {
				t.Fatal(err)
			}
			if err := unix.Kill(n, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			for { // until its end is seen at the socket
				if text, err := os.ReadFile("/proc/" + pid + "/stat"); err != nil || strings.Contains(string(text), ") Z ") {
					break
				}
			}
		}
	}
	r := h.wait(me, h.start(me, &api.StartRequest{}, "echo", "alive").ID)
	if stdoutOf(t, r) != "alive\n" || wasReady(r) {
		t.Errorf("got %s", r.Encode(true))
	}
}

// childrenOf lists the children of all threads of a process.
func childrenOf(t *testing.T, pid int) (list []string) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil { // else the thread has ended
			list = append(list, strings.Fields(string(text))...)
		}
	}
	return list
}

// TestPreparedSandboxesAreNoExecutions: a bound on executions at a time does not count
// sandboxes that wait.
func TestPreparedSandboxesAreNoExecutions(t *testing.T) {
	h := openHouse(t)
	h.awaitPool(h.pooled(1), 1)
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(file, []byte("[security]\nmax_concurrent_executions = 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	h.env = []string{"CAPSULE_STATE=" + h.state}
	o := h.finish(h.command("--embedded", "--config", file, "--", "echo", "alone"))
	if o.code != 0 || o.out != "alone\n" {
		t.Errorf("exit code %d, %q, %q", o.code, o.out, o.stderr)
	}
}

// TestPreparedSandboxOfAnotherHost: a mount below what a sandbox shows makes it unfit,
// one elsewhere does not. It happens in a mount namespace of its own.
func TestPreparedSandboxOfAnotherHost(t *testing.T) {
	if !withOwnMounts(t) {
		return
	}
	h := openHouse(t)
	pool := h.pooled(1)
	me := pool.As(uint32(os.Geteuid()))
	shown := "/usr/src"
	if _, err := os.Stat(shown); err != nil {
		shown = "/usr/share"
	}
	// In this order: one that is prepared while the second mount is there is unfit later.
	for _, at := range []struct {
		place string
		fits  bool
	}{{t.TempDir(), true}, {shown, false}} {
		place, fits := at.place, at.fits
		h.awaitPool(pool, 1)
		if err := unix.Mount("capsule-e2e", place, "tmpfs", 0, "size=4k"); err != nil {
			t.Fatal(err)
		}
		r := h.wait(me, h.start(me, &api.StartRequest{}, "true").ID)
		if err := unix.Unmount(place, 0); err != nil {
			t.Error(err)
		}
		if wasReady(r) != fits || r.Status != spec.StatusSuccess {
			t.Errorf("%s, want ready %v: %s", place, fits, r.Encode(true))
		}
	}
}

// withOwnMounts runs the test again in a mount namespace of its own; true: this is there.
func withOwnMounts(t *testing.T) bool {
	t.Helper()
	const marker = "CAPSULE_E2E_MOUNTS"
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount")
	}
	if os.Getenv(marker) != "" {
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), marker+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} // and makes all mounts private
	if out, err := cmd.CombinedOutput(); err != nil || bytes.Contains(out, []byte("no tests to run")) {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// TestLearnedSandboxOfAnotherHost: a mount that what a sandbox shows lies on becomes
// noexec, which leaves every file what it was; and something is mounted below a path
// with a space, which mountinfo writes otherwise.
func TestLearnedSandboxOfAnotherHost(t *testing.T) {
	if !withOwnMounts(t) {
		return
	}
	h := openHouse(t)
	pool := h.pooled(2)
	me := pool.As(uint32(os.Geteuid()))
	h.awaitPool(pool, 1)
	above, other := h.directory(), h.directory()
	h.write(other, "new", "")
	shown := filepath.Join(above, "two words")
	if err := os.MkdirAll(filepath.Join(shown, "below"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(shown, "script"), []byte("#!/bin/sh\necho ran\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	mount := func(source, at, kind string, flags uintptr) {
		t.Helper()
		if err := unix.Mount(source, at, kind, flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	// So that flags can change without another file.
	mount(above, above, "", unix.MS_BIND)
	mount(shown, shown, "", unix.MS_BIND)
	run := func() (out string, ready bool) {
		t.Helper()
		req := spec.Default()
		req.Command = []string{"sh", "-c", "cd '" + shown + "'; ./script 2>/dev/null; ls below"}
		req.Isolation.ReadonlyPaths = []string{shown}
		r := h.wait(me, h.submit(me, req))
		if r.Status != spec.StatusSuccess {
			t.Errorf("got %s", r.Encode(true))
		}
		return stdoutOf(t, r), wasReady(r)
	}
	for i := range 3 {
		if out, ready := run(); ready != (i == 2) || out != "ran\n" {
			t.Fatalf("%d: ready %v, %q", i, ready, out)
		}
		h.awaitPool(pool, min(i, 1)+1)
	}
	for name, tc := range map[string]struct {
		change, undo func()
		want         string
	}{
		"noexec": {func() { mount("", shown, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_NOEXEC) },
			func() { mount("", shown, "", unix.MS_BIND|unix.MS_REMOUNT) }, ""},
		"mount below": {func() {
			// No tmpfs: without idmapped mounts, before Linux 6.3, nothing is prepared.
			mount(other, filepath.Join(shown, "below"), "", unix.MS_BIND)
		}, func() {
			if err := unix.Unmount(filepath.Join(shown, "below"), 0); err != nil {
				t.Error(err)
			}
		}, "ran\nnew\n"},
	} {
		tc.change()
		// Twice: the second has been prepared since.
		for i := range 2 {
			if out, ready := run(); ready != (i == 1) || out != tc.want {
				t.Errorf("%s: ready %v, %q, want %q", name, ready, out, tc.want)
			}
			h.awaitPool(pool, 2)
		}
		tc.undo()
		if out, ready := run(); ready || out != "ran\n" {
			t.Errorf("after %s: ready %v, %q", name, ready, out)
		}
		h.awaitPool(pool, 2)
	}
	for _, at := range []string{shown, above} {
		if err := unix.Unmount(at, 0); err != nil {
			t.Error(err)
		}
	}
}

// TestPoolFollowsDemand: a request that finds none makes the pool grow within its
// bound, and nothing is left when the daemon closes.
func TestPoolFollowsDemand(t *testing.T) {
	h := openHouse(t)
	pool := h.pooled(3)
	me := pool.As(uint32(os.Geteuid()))
	// Where a sandbox is prepared sooner than the next request comes, none finds none.
	for pool.PoolStats().Misses < 2 && h.ctx.Err() == nil {
		var ids []string
		for range 12 {
			ids = append(ids, h.start(me, &api.StartRequest{}, "true").ID)
		}
		for _, id := range ids {
			if r := h.wait(me, id); r.Status != spec.StatusSuccess {
				t.Errorf("got %s", r.Encode(true))
			}
		}
	}
	h.awaitPool(pool, 3)
}

// TestLearnedSandbox: what several requests want is prepared for those that come after
// them, with all that belongs to the sandbox and nothing that belongs to one of them.
func TestLearnedSandbox(t *testing.T) {
	h := openHouse(t)
	pool := h.pooled(2)
	me := pool.As(uint32(os.Geteuid()))
	h.awaitPool(pool, 1)
	shown, kept := h.directory(), h.directory()
	file := filepath.Join(shown, "word")
	h.write(shown, "word", "first\n")
	run := func(secret string) *spec.Response {
		t.Helper()
		req := spec.Default()
		req.Command = []string{"sh", "-c", "cat " + file + "; echo $SECRET > " + kept + "/out; env; hostname; pwd"}
		req.Environment = map[string]string{"SECRET": secret}
		req.Isolation.ReadonlyPaths, req.Isolation.WritablePaths = []string{file}, []string{kept}
		req.Isolation.Hostname, req.Isolation.WorkingDirectory = "learned", "/tmp"
		r := h.wait(me, h.submit(me, req))
		if out := stdoutOf(t, r); r.Status != spec.StatusSuccess || !strings.HasSuffix(out, "learned\n/tmp\n") || !strings.Contains(out, "SECRET="+secret+"\n") {
			t.Errorf("got %s", r.Encode(true))
		}
		if text, err := os.ReadFile(filepath.Join(kept, "out")); err != nil || string(text) != secret+"\n" {
			t.Errorf("it wrote %q, %v", text, err)
		}
		return r
	}
	for i, ready := range []bool{false, false, true, true} {
		if r := run(strconv.Itoa(i)); wasReady(r) != ready || !strings.HasPrefix(stdoutOf(t, r), "first\n") {
			t.Errorf("%d: ready %v, want %v: %s", i, wasReady(r), ready, stdoutOf(t, r))
		}
		h.awaitPool(pool, min(i, 1)+1)
	}
	for _, pid := range h.waitingShims() {
		for _, child := range append(childrenOf(t, pid), strconv.Itoa(pid)) {
			if text, err := os.ReadFile("/proc/" + child + "/environ"); err == nil && bytes.Contains(text, []byte("SECRET")) {
				t.Errorf("process %s of a sandbox that waits has %q", child, text)
			}
		}
	}
	// The host replaces what a sandbox that waits shows: it is not used, another is made.
	h.write(shown, "new", "second\n")
	if err := os.Rename(filepath.Join(shown, "new"), file); err != nil {
		t.Fatal(err)
	}
	for _, ready := range []bool{false, true} {
		if r := run("x"); wasReady(r) != ready || !strings.HasPrefix(stdoutOf(t, r), "second\n") {
			t.Errorf("after a change, ready %v, want %v: %s", wasReady(r), ready, stdoutOf(t, r))
		}
		h.awaitPool(pool, 2)
	}
	// One that cannot be prepared any more is forgotten, and refused as ever.
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	req := spec.Default()
	req.Command = []string{"true"}
	req.Isolation.ReadonlyPaths = []string{file}
	for range 3 {
		if r := h.wait(me, h.submit(me, req)); r.Error == nil || r.Error.Code != string(fault.InvalidPath) {
			t.Errorf("got %s", r.Encode(true))
		}
	}
	if r := h.wait(me, h.start(me, &api.StartRequest{}, "true").ID); r.Status != spec.StatusSuccess {
		t.Errorf("got %s", r.Encode(true))
	}
}

// submit starts an execution of a request and returns its id.
func (h *house) submit(s api.Supervisor, req *spec.Request) string {
	h.Helper()
	started, err := s.Start(h.ctx, &api.StartRequest{Request: req.Encode()})
	if err != nil {
		h.Fatal(err)
	}
	h.ids = append(h.ids, started.ID)
	return started.ID
}
