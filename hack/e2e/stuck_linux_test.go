package e2e

import (
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/supervisor"
	"github.com/capsule-run/capsule/supervisor/api"
)

// stuckTimeout is the time-out of the executions here, within which their shims
// are stopped, on a busy machine too. There is no grace, which would only be waited for.
const stuckTimeout = 3 * time.Second

// TestStuckShim: a shim that is stopped answers nobody and keeps no deadline. It
// holds up neither who looks at executions, nor does its command outlive its time.
func TestStuckShim(t *testing.T) {
	h := openHouse(t)
	o := h.options()
	o.Overdue = time.Second
	s, err := supervisor.NewDaemon(supervisor.DaemonOptions{Options: o})
	if err != nil {
		t.Fatal(err)
	}
	h.Cleanup(func() {
		if err := errors.Join(s.Drain(h.ctx), s.Close()); err != nil {
			h.Error(err)
		}
	})
	me := s.As(uint32(os.Geteuid()))
	req := spec.Default()
	req.Command, req.TimeoutMS, req.GraceMS = []string{"sleep", "1000"}, patient(stuckTimeout).Milliseconds(), 0
	well := h.start(me, &api.StartRequest{}, "sleep", "1000")
	started, err := me.Start(h.ctx, &api.StartRequest{Request: req.Encode()})
	if err != nil {
		t.Fatal(err)
	}
	h.ids = append(h.ids, started.ID)
	h.shimOf(well.ID)
	stop(t, h.shimOf(started.ID))
	stats, err := me.Stats(h.ctx, nil)
	if err != nil || len(stats) != 2 {
		t.Fatalf("stats: %+v, %v", stats, err)
	}
	for _, one := range stats {
		if one.ID == started.ID && (one.Memory != nil || one.Metrics.WallTimeMS != nil) {
			t.Errorf("who answers for it? %+v", one)
		}
	}
	if d, err := me.Inspect(h.ctx, started.ID); err != nil || d.Status != api.StatusRunning {
		t.Errorf("inspect: %+v, %v", d, err)
	}
	if r := h.wait(me, started.ID); r.Termination.Reason != spec.ReasonShimLost {
		t.Errorf("got %s", r.Encode(true))
	}
	if _, err := me.Kill(h.ctx, well.ID, 0, true); err != nil {
		t.Error(err)
	}
	h.wait(me, well.ID)
}

// TestStuckShimInForeground is the same without a daemon.
func TestStuckShimInForeground(t *testing.T) {
	h := openHouse(t)
	o := h.options()
	o.Overdue = time.Second
	s, err := supervisor.New(o)
	if err != nil {
		t.Fatal(err)
	}
	req := spec.Default()
	req.Command, req.TimeoutMS, req.GraceMS = []string{"sleep", "1000"}, patient(stuckTimeout).Milliseconds(), 0
	e, err := s.Start(h.ctx, req, uuid.NewString(), supervisor.Streams{})
	if err != nil {
		t.Fatal(err)
	}
	h.ids = append(h.ids, e.ID())
	stop(t, h.shimOf(e.ID()))
	if r := e.Wait(); r.Termination.Reason != spec.ReasonShimLost {
		t.Errorf("got %s", r.Encode(true))
	}
}

// stop stops a shim, which is a child of this process, and waits until the last of its
// threads runs no more: until then it may answer.
func stop(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for {
		err := unix.Waitid(unix.P_PID, pid, &unix.Siginfo{}, unix.WSTOPPED|unix.WNOWAIT, nil)
		if err == nil {
			return
		}
		if err != unix.EINTR {
			t.Fatal(err)
		}
	}
}
