package shim

import (
	"testing"
	"time"

	"github.com/capsule-run/capsule/spec"
)

// TestTimelineIsBounded takes a point at every interval for ten days.
func TestTimelineIsBounded(t *testing.T) {
	l := timeline{line: spec.Timeline{IntervalMS: 100}}
	const end = 10 * 24 * 3600 * 1000
	taken := 0
	for now := int64(100); now < end; taken++ {
		l.add(spec.Point{AtMS: now})
		if n := len(l.line.Points); n > spec.TimelineMax {
			t.Fatalf("%d points", n)
		}
		now += l.untilNext(now).Milliseconds()
	}
	line := l.end(0)
	if n := len(line.Points); n < spec.TimelineMax/2 {
		t.Errorf("only %d points are left of %d", n, taken)
	}
	if taken > 10*spec.TimelineMax {
		t.Errorf("%d samples for ten days", taken)
	}
	for i, p := range line.Points {
		if want := int64(i+1) * line.IntervalMS; p.AtMS != want {
			t.Fatalf("point %d is of %d ms, want %d: interval %d", i, p.AtMS, want, line.IntervalMS)
		}
	}
	if line.Points[len(line.Points)-1].AtMS < end-line.IntervalMS {
		t.Errorf("the last point is of %d ms", line.Points[len(line.Points)-1].AtMS)
	}
}

// TestTimelineCatchesUp: a point that comes late does not move the next ones.
func TestTimelineCatchesUp(t *testing.T) {
	l := timeline{line: spec.Timeline{IntervalMS: 100}}
	for now, want := range map[int64]time.Duration{100: 100, 101: 99, 199: 1, 200: 100, 350: 50, 1234: 66} {
		if have := l.untilNext(now); have != want*time.Millisecond {
			t.Errorf("after %d ms: %v, want %d", now, have, want)
		}
	}
}

// TestTimelineEnds: no point comes after the end, and none means no line.
func TestTimelineEnds(t *testing.T) {
	l := timeline{line: spec.Timeline{IntervalMS: 100}}
	if l.points() != nil || l.end(0) != nil || !l.ended {
		t.Error("a line without points")
	}
}

// TestTimelineEndsWithThePayload: what was sampled before its end was heard of is not its.
func TestTimelineEndsWithThePayload(t *testing.T) {
	var l timeline
	l.line.IntervalMS = 100
	for _, at := range []int64{100, 200, 300, 400} {
		l.add(spec.Point{AtMS: at})
	}
	if line := l.end(310 * time.Millisecond); len(line.Points) != 3 || line.Points[2].AtMS != 300 {
		t.Errorf("%+v", line.Points)
	}
	if l.end(50*time.Millisecond) != nil {
		t.Error("there are points of a payload that was quicker than the first")
	}
}
