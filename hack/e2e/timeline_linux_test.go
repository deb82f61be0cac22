package e2e

import (
	"syscall"
	"testing"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/supervisor/api"
)

// TestTimelineGrows: the time line of a living execution is in inspect, grows,
// and is what that of the ended one begins with.
func TestTimelineGrows(t *testing.T) {
	h := openHouse(t)
	h.needLimits(spec.LimitMemory)
	s := h.embedded()
	id := h.start(s, &api.StartRequest{}, "sleep", "1000").ID
	t.Cleanup(func() {
		if err := s.Remove(h.ctx, id, true); err != nil {
			t.Error(err)
		}
	})
	var early *spec.Timeline
	for deadline := time.Now().Add(patient(30 * time.Second)); ; time.Sleep(10 * time.Millisecond) { // points send no event
		d, err := s.Inspect(h.ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		if early = d.Response.Timeline; early != nil && len(early.Points) >= 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no time line: %s", d.Response.Encode(true))
		}
	}
	if _, err := s.Kill(h.ctx, id, syscall.SIGKILL, true); err != nil {
		t.Fatal(err)
	}
	if r := h.wait(s, id); r.Timeline == nil || len(r.Timeline.Points) < len(early.Points) {
		t.Fatalf("the points are gone: %s", r.Encode(true))
	}
	d, err := s.Inspect(h.ctx, id)
	if err != nil || d.Response.Timeline == nil {
		t.Fatalf("not kept: %v", err)
	}
	late := d.Response.Timeline
	if late.IntervalMS != early.IntervalMS {
		return // so slow a machine that points went already
	}
	for i, p := range early.Points {
		if q := late.Points[i]; q.AtMS != p.AtMS || *q.MemoryBytes != *p.MemoryBytes || *q.Pids != *p.Pids || *q.CPUTimeMS != *p.CPUTimeMS {
			t.Errorf("point %d was %+v and is %+v", i, p, q)
		}
	}
}
