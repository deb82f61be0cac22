package e2e

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor"
	"github.com/capsule-run/capsule/supervisor/admission"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/config"
	"github.com/capsule-run/capsule/supervisor/policy"
)

// house is a state directory of a test's own with the supervisors over it.
type house struct {
	*capsule
	ctx   context.Context
	state string
	shim  string
}

func openHouse(t *testing.T) *house {
	c := begin(t)
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patient(time.Minute))
	t.Cleanup(cancel)
	h := &house{capsule: c, ctx: ctx, state: filepath.Join(scratch(), "house-"+uuid.NewString()), shim: filepath.Join(bin, "capsule-shim")}
	t.Cleanup(func() {
		deadline := time.Now().Add(patient(5 * time.Second))
		for {
			left, err := filepath.Glob(h.state + "/executions/*")
			if err != nil {
				t.Error(err)
			}
			if len(left) == 0 {
				break
			}
			if time.Now().After(deadline) {
				for _, dir := range left {
					t.Errorf("left behind: %v", contents(dir))
				}
				break
			}
			time.Sleep(2 * time.Millisecond) // the end of strangers sends no event
		}
		if err := os.RemoveAll(h.state); err != nil {
			t.Error(err)
		}
	})
	return h
}

func (h *house) options() supervisor.Options {
	return supervisor.Options{StateDir: h.state, ShimPath: h.shim}
}

// embedded is a supervisor without a daemon, as every capsulectl has one.
func (h *house) embedded() api.Supervisor {
	h.Helper()
	s, err := supervisor.New(h.options())
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { _ = s.Close() }) // closed twice where a test closes it
	return s.As(uint32(os.Geteuid()))
}

// daemon is a supervisor that stays, and what it found.
func (h *house) daemon(limits admission.Limits) (*supervisor.Supervisor, supervisor.Recovered) {
	h.Helper()
	s, err := supervisor.NewDaemon(supervisor.DaemonOptions{Options: h.options(), Admission: limits})
	if err != nil {
		h.Fatal(err)
	}
	found, err := s.RecoverAll(h.ctx)
	if err != nil {
		h.Fatal(err)
	}
	return s, found
}

func (h *house) start(s api.Supervisor, r *api.StartRequest, command ...string) *api.Started {
	h.Helper()
	req := spec.Default()
	req.Command = command
	r.Request = req.Encode()
	started, err := s.Start(h.ctx, r)
	if err != nil {
		h.Fatal(err)
	}
	h.ids = append(h.ids, started.ID)
	return started
}

// atGate is what a command of held does until there is a file "open" in its directory.
const atGate = `until [ -e "$0/open" ]; do sleep 0.01; done; `

// held is a request for a script that sees the directory, and has its path in "$0".
func held(dir, script string, args ...string) *spec.Request {
	r := spec.Default()
	r.Command = append(sh(script, dir), args...)
	r.Isolation.ReadonlyPaths = []string{dir}
	return r
}

func (h *house) wait(s api.Supervisor, id string) *spec.Response {
	h.Helper()
	r, err := s.Wait(h.ctx, id)
	if err != nil {
		h.Fatal(err)
	}
	return r
}

func stdoutOf(t *testing.T, r *spec.Response) string {
	t.Helper()
	out, err := r.StdoutBytes()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// shimOf waits until the shim of an execution runs its command, and returns its pid.
func (h *house) shimOf(id string) int {
	h.Helper()
	dir := filepath.Join(h.state, "executions", id)
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		h.Fatal(err)
	}
	defer unix.Close(watch)
	if _, err := unix.InotifyAddWatch(watch, dir, unix.IN_MOVED_TO); err != nil {
		h.Fatal(err)
	}
	for {
		if text, err := os.ReadFile(dir + "/shim.json"); err == nil {
			_, rest, _ := strings.Cut(string(text), `"pid":`)
			pid, err := strconv.Atoi(rest[:strings.IndexByte(rest, ',')])
			if err != nil {
				h.Fatal(err)
			}
			return pid
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(watch), Events: unix.POLLIN}}, int(patient(10*time.Second).Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			h.Fatalf("no shim.json: %v", err)
		}
		if _, err := unix.Read(watch, make([]byte, 4096)); err != nil {
			h.Fatal(err)
		}
	}
}

func wantCode(t *testing.T, err error, want fault.Code) {
	t.Helper()
	if err == nil || fault.From(err, "").Code != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestDetached: without a daemon an execution outlives the supervisor that
// started it, and the next one finds it, living and ended.
func TestDetached(t *testing.T) {
	h := openHouse(t)
	first := h.embedded()
	gate := h.directory()
	id := h.submit(first, held(gate, "echo hi; "+atGate))
	second := h.embedded()
	page, err := second.List(h.ctx, &api.Filter{})
	if err != nil || len(page.Executions) != 1 || page.Executions[0].ID != id {
		t.Fatalf("list of the living: %+v, %v", page, err)
	}
	h.write(gate, "open", "")
	var out, errs bytes.Buffer
	if err := second.Attach(h.ctx, id, &api.AttachOptions{Stdout: &out, Stderr: &errs}); err != nil {
		t.Fatal(err)
	}
	if out.String() != "hi\n" {
		t.Errorf("attached output %q", out.String())
	}
	r := h.wait(h.embedded(), id)
	if r.Status != spec.StatusSuccess || stdoutOf(t, r) != "hi\n" {
		t.Errorf("response %s", r.Encode(true))
	}
	if err := first.Remove(h.ctx, id, false); err != nil {
		t.Fatal(err)
	}
	_, err = second.Inspect(h.ctx, id)
	wantCode(t, err, fault.NotFound)
	req := spec.Default()
	req.Command = []string{"true"}
	_, err = second.Start(h.ctx, &api.StartRequest{ID: id, Request: req.Encode()})
	wantCode(t, err, fault.InvalidValue) // ids are not used twice
}

// TestStartIsIdempotent: by id, for the same request of the same owner.
func TestStartIsIdempotent(t *testing.T) {
	h := openHouse(t)
	s := h.embedded()
	id := uuid.NewString()
	if !h.start(s, &api.StartRequest{ID: id}, "sleep", "0.2").Created {
		t.Error("the first Start created nothing")
	}
	if h.start(s, &api.StartRequest{ID: id}, "sleep", "0.2").Created {
		t.Error("the second Start created another")
	}
	req := spec.Default()
	req.Command = []string{"sleep", "0.3"}
	_, err := s.Start(h.ctx, &api.StartRequest{ID: id, Request: req.Encode()})
	wantCode(t, err, fault.InvalidValue)
	h.wait(s, id)
	if h.start(s, &api.StartRequest{ID: id}, "sleep", "0.2").Created {
		t.Error("Start after the end created another")
	}
	if err := s.Remove(h.ctx, id, false); err != nil {
		t.Error(err)
	}
}

// TestDetachedShimKilled: its death is its execution's, and is told.
func TestDetachedShimKilled(t *testing.T) {
	h := openHouse(t)
	s := h.embedded()
	id := h.start(s, &api.StartRequest{}, "sleep", "1000").ID
	if err := syscall.Kill(h.shimOf(id), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r := h.wait(s, id)
	if r.Status != spec.StatusError || r.Termination.Reason != spec.ReasonShimLost || r.Error.Code != string(fault.ShimLost) {
		t.Errorf("response %s", r.Encode(true))
	}
	if err := s.Remove(h.ctx, id, true); err != nil {
		t.Error(err)
	}
}

// TestDaemonRestart: what runs goes on, what waits gets its turn, and every
// result arrives at the next daemon.
func TestDaemonRestart(t *testing.T) {
	h := openHouse(t)
	limits := admission.Limits{MaxConcurrent: 2, MaxQueued: 10}
	s, _ := h.daemon(limits)
	me := s.As(uint32(os.Geteuid()))
	var ids []string
	gate := h.directory()
	for i := range 5 {
		started, err := me.Start(h.ctx, &api.StartRequest{Request: held(gate, atGate+"echo $1; exit $1", strconv.Itoa(i)).Encode()})
		if err != nil {
			t.Fatal(err)
		}
		if queued := started.Status == api.StatusQueued; queued != (i >= 2) {
			t.Errorf("execution %d is %s", i, started.Status)
		}
		ids = append(ids, started.ID)
	}
	h.ids = append(h.ids, ids...)
	h.shimOf(ids[1])
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, found := h.daemon(limits)
	defer s.Close()
	if found.Live != 2 || found.Queued != 3 || found.Collected != 0 || found.Lost != 0 {
		t.Errorf("found %+v", found)
	}
	h.write(gate, "open", "")
	me = s.As(uint32(os.Geteuid()))
	for i, id := range ids {
		r := h.wait(me, id)
		if r.Status != spec.StatusSuccess || r.ExitCode == nil || *r.ExitCode != i || stdoutOf(t, r) != strconv.Itoa(i)+"\n" {
			t.Errorf("execution %d: %s", i, r.Encode(true))
		}
	}
	if err := s.Drain(h.ctx); err != nil {
		t.Fatal(err)
	}
	req := spec.Default()
	req.Command = []string{"true"}
	_, err := me.Start(h.ctx, &api.StartRequest{Request: req.Encode()})
	wantCode(t, err, fault.TooManyExecutions)
	page, err := me.List(h.ctx, &api.Filter{All: true})
	if err != nil || len(page.Executions) != 5 {
		t.Errorf("history %+v, %v", page, err)
	}
}

// TestAllowedPatternInADaemon: what a pattern allows runs, at once and when it has waited.
func TestAllowedPatternInADaemon(t *testing.T) {
	c := config.Default()
	c.Security.AllowedCommands, c.Security.AllowedPatterns = []string{}, []string{"sh -c .*", "true"}
	rules, err := policy.New(c)
	if err != nil {
		t.Fatal(err)
	}
	h := openHouse(t)
	options := h.options()
	options.Policy = rules
	s, err := supervisor.NewDaemon(supervisor.DaemonOptions{Options: options, Admission: admission.Limits{MaxConcurrent: 1, MaxQueued: 1}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(s.Drain(h.ctx), s.Close()); err != nil {
			t.Error(err)
		}
	}()
	me := s.As(uint32(os.Geteuid()))
	first := h.start(me, &api.StartRequest{StreamStdin: true}, "sh", "-c", "sleep 1000")
	waits := h.start(me, &api.StartRequest{}, "true")
	if waits.Status != api.StatusQueued {
		t.Errorf("it is %s", waits.Status)
	}
	h.shimOf(first.ID)
	if _, err := me.Kill(h.ctx, first.ID, 0, true); err != nil {
		t.Error(err)
	}
	if r := h.wait(me, first.ID); r.Termination.Reason != spec.ReasonKilledByCaller {
		t.Errorf("at once: %s", r.Encode(true))
	}
	if r := h.wait(me, waits.ID); r.Status != spec.StatusSuccess {
		t.Errorf("when it has waited: %s", r.Encode(true))
	}
}

// TestCancelInQueue: an execution that waits is ended without having run.
func TestCancelInQueue(t *testing.T) {
	h := openHouse(t)
	s, _ := h.daemon(admission.Limits{MaxConcurrent: 1, MaxQueued: 1})
	defer s.Close()
	me := s.As(uint32(os.Geteuid()))
	running := h.start(me, &api.StartRequest{}, "sleep", "1000")
	waiting := h.start(me, &api.StartRequest{}, "true")
	req := spec.Default()
	req.Command = []string{"true"}
	_, err := me.Start(h.ctx, &api.StartRequest{Request: req.Encode()})
	wantCode(t, err, fault.TooManyExecutions)
	if f := fault.From(err, ""); f.Details["retry_after_ms"] == nil {
		t.Errorf("details %v", f.Details)
	}
	if ok, err := me.Kill(h.ctx, waiting.ID, syscall.SIGTERM, false); !ok || err != nil {
		t.Errorf("kill in the queue: %v, %v", ok, err)
	}
	if r := h.wait(me, waiting.ID); r.Termination.Reason != spec.ReasonKilledByCaller || r.Metrics.WallTimeMS != nil {
		t.Errorf("response %s", r.Encode(true))
	}
	if err := me.Remove(h.ctx, running.ID, true); err != nil {
		t.Error(err)
	}
	if err := s.Drain(h.ctx); err != nil {
		t.Error(err)
	}
}

// TestOthersSeeNothing: an execution is its owner's and root's.
func TestOthersSeeNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root serves other users")
	}
	h := openHouse(t)
	s, _ := h.daemon(admission.Limits{})
	defer s.Close()
	owner, other, root := s.As(4001), s.As(4002), s.As(0)
	id := h.start(owner, &api.StartRequest{}, "sleep", "1000").ID
	_, err := other.Inspect(h.ctx, id)
	wantCode(t, err, fault.NotFound)
	_, err = other.Kill(h.ctx, id, syscall.SIGKILL, true)
	wantCode(t, err, fault.NotFound)
	wantCode(t, other.Remove(h.ctx, id, true), fault.NotFound)
	if page, err := other.List(h.ctx, &api.Filter{All: true}); err != nil || len(page.Executions) != 0 {
		t.Errorf("another's list: %+v, %v", page, err)
	}
	req := spec.Default()
	req.Command = []string{"cat", "/etc/shadow"}
	req.Isolation.WritablePaths = []string{"/tmp"}
	_, err = owner.Start(h.ctx, &api.StartRequest{Request: req.Encode()})
	wantCode(t, err, fault.PathRefused)
	for want, change := range map[fault.Code]func(*spec.Request){
		fault.NotAuthorised: func(r *spec.Request) { r.Isolation.Network = true },
		fault.OutOfRange:    func(r *spec.Request) { r.Resources.MaxOutputBytes = 1 << 30 },
	} {
		req := spec.Default()
		req.Command = []string{"true"}
		change(req)
		_, err = owner.Start(h.ctx, &api.StartRequest{Request: req.Encode()})
		wantCode(t, err, want)
	}
	if err := root.Remove(h.ctx, id, true); err != nil {
		t.Error(err)
	}
}
