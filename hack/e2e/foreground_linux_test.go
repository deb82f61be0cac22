package e2e

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/google/uuid"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor"
	"github.com/capsule-run/capsule/supervisor/admission"
	"github.com/capsule-run/capsule/supervisor/api"
)

// front starts an execution in the foreground of a supervisor without a daemon,
// and returns when its command runs.
func (h *house) front(ctx context.Context, command ...string) *supervisor.Execution {
	h.Helper()
	s, err := supervisor.New(h.options())
	if err != nil {
		h.Fatal(err)
	}
	req := spec.Default()
	req.Command, req.Labels = command, map[string]string{"of": "front"}
	e, err := s.Start(ctx, req, uuid.NewString(), supervisor.Streams{})
	if err != nil {
		h.Fatal(err)
	}
	h.ids = append(h.ids, e.ID())
	h.shimOf(e.ID())
	h.eventually("it offers its socket", func() bool { return exists(filepath.Join(h.state, "executions", e.ID(), "shim.sock")) })
	return e
}

// prints waits until an execution has printed a text.
func (h *house) prints(s api.Supervisor, id, text string) {
	h.Helper()
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	var out bytes.Buffer
	err := s.Attach(ctx, id, &api.AttachOptions{Stdout: writerFunc(func(p []byte) (int, error) {
		if out.Write(p); out.String() == text {
			cancel()
		}
		return len(p), nil
	})})
	if out.String() != text {
		h.Fatalf("it prints %q: %v", out.String(), err)
	}
}

// TestForegroundIsSeen: what runs in the foreground of one process is seen and
// ended by others, with and without a daemon, for as long as it lives.
func TestForegroundIsSeen(t *testing.T) {
	for name, open := range map[string]func(*house) api.Supervisor{
		"embedded": (*house).embedded,
		"daemon": func(h *house) api.Supervisor {
			s, found := h.daemon(admission.Limits{})
			h.Cleanup(func() { _ = s.Close() }) // it minds nothing
			if found.Live+found.Lost+found.Collected != 0 {
				t.Errorf("a foreground execution was taken over: %+v", found)
			}
			return s.As(uint32(os.Geteuid()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := openHouse(t)
			command := []string{"sh", "-c", "echo hi; exec sleep 1000"}
			e := h.front(h.ctx, command...)
			other := open(h)
			// What it prints is kept once its shim has read it.
			h.prints(other, e.ID(), "hi\n")
			var s api.Summary
			// A shim that is not soon to answer, on a busy machine too, is shown without what it would tell.
			h.eventually("its shim tells of it", func() bool {
				page, err := other.List(h.ctx, &api.Filter{Labels: map[string]string{"of": ""}})
				if err != nil || len(page.Executions) > 1 {
					t.Fatalf("list: %+v, %v", page, err)
				}
				if len(page.Executions) == 1 {
					s = page.Executions[0]
				}
				return s.ID != ""
			})
			if s.ID != e.ID() || s.Status != api.StatusRunning || !slices.Equal(s.Command, command) || s.Labels["of"] != "front" ||
				s.Owner != uint32(os.Geteuid()) || s.Created.IsZero() || s.Started.IsZero() || !s.KillOnDisconnect {
				t.Errorf("it is shown as %+v", s)
			}
			if info, err := other.Info(h.ctx); err != nil || info.Running != 1 {
				t.Errorf("info: %+v, %v", info, err)
			}
			h.eventually("inspect has all of it", func() bool {
				d, err := other.Inspect(h.ctx, e.ID())
				if err != nil || d.Request != nil && !slices.Equal(d.Request.Command, command) {
					t.Fatalf("inspect: %+v, %v", d, err)
				}
				return d.Pid != 0 && d.Request != nil
			})
			h.eventually("stats have its limits", func() bool {
				stats, err := other.Stats(h.ctx, nil)
				if err != nil || len(stats) != 1 {
					t.Fatalf("stats: %+v, %v", stats, err)
				}
				return stats[0].MemoryLimit != 0
			})
			var out bytes.Buffer
			if err := other.Attach(h.ctx, e.ID(), &api.AttachOptions{Stdout: &out, NoFollow: true}); err != nil || out.String() != "hi\n" {
				t.Errorf("logs: %q, %v", out.String(), err)
			}
			req := spec.Default()
			req.Command = []string{"true"}
			_, err := other.Start(h.ctx, &api.StartRequest{ID: e.ID(), Request: req.Encode()})
			wantCode(t, err, fault.InvalidValue)
			wantCode(t, other.Remove(h.ctx, e.ID(), false), fault.InvalidValue)
			if delivered, err := other.Kill(h.ctx, e.ID(), syscall.SIGTERM, false); !delivered || err != nil {
				t.Errorf("kill: %v, %v", delivered, err)
			}
			if r := e.Wait(); r.Signal == nil || *r.Signal != int(syscall.SIGTERM) {
				t.Errorf("its caller got %s", r.Encode(true))
			}
			page, err := other.List(h.ctx, &api.Filter{All: true})
			if err != nil || len(page.Executions) != 0 {
				t.Errorf("it is seen after its end: %+v, %v", page, err)
			}
			_, err = other.Inspect(h.ctx, e.ID())
			wantCode(t, err, fault.NotFound)
		})
	}
}

// TestForegroundStopped: a shim that does not answer holds nobody up.
func TestForegroundStopped(t *testing.T) {
	h := openHouse(t)
	e := h.front(h.ctx, "sleep", "1000")
	pid := h.shimOf(e.ID())
	stop(t, pid)
	page, err := h.embedded().List(h.ctx, &api.Filter{})
	if err != nil || len(page.Executions) != 1 || page.Executions[0].ID != e.ID() {
		t.Errorf("list: %+v, %v", page, err)
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := e.Kill(syscall.SIGKILL, true); err != nil {
		t.Error(err)
	}
	e.Wait()
}

// TestForegroundRemoved: removed with force it ends, and its caller is told.
func TestForegroundRemoved(t *testing.T) {
	h := openHouse(t)
	e := h.front(h.ctx, "sleep", "1000")
	if err := h.embedded().Remove(h.ctx, e.ID(), true); err != nil {
		t.Error(err)
	}
	if r := e.Wait(); r.Termination.Reason != spec.ReasonKilledByCaller {
		t.Errorf("its caller got %s", r.Encode(true))
	}
}
