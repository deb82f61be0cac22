package shim

import (
	"cmp"
	"sync"
	"time"

	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/spec"
)

// timeline samples an execution. It needs no thread of its own: each point is
// read by a timer's callback, in three reads of the control group.
type timeline struct {
	mu    sync.Mutex
	line  spec.Timeline
	timer *time.Timer
	ended bool
}

// beginTimeline takes points until stop or the end.
func (e *execution) beginTimeline(stop <-chan struct{}) {
	every := cmp.Or(e.boot.TimelineMS, shimapi.TimelineMS)
	if every < 0 {
		return
	}
	t := &e.timeline
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return
	}
	t.line.IntervalMS = every
	// The clock of a point is the payload's, so that the first comes a whole
	// interval after execve whatever its set-up took.
	since := monotonic() - e.started
	t.timer = time.AfterFunc(max(time.Duration(every)*time.Millisecond-since, 0), func() { e.takePoint(stop) })
}

func (e *execution) takePoint(stop <-chan struct{}) {
	if isClosed(stop) {
		return
	}
	memory, cpu, pids := e.group.Sample()
	if pids != nil && e.plan.HasInit {
		pids = ptr(max(*pids-1, 0))
	}
	p := spec.Point{AtMS: (monotonic() - e.started).Milliseconds(), MemoryBytes: memory, CPUTimeMS: millis(cpu), Pids: pids}
	t := &e.timeline
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended || isClosed(stop) {
		return // what was read may be of a group that is being taken away
	}
	t.add(p)
	t.timer.Reset(t.untilNext(p.AtMS))
}

// add appends a point. A line that is full by it loses every second one; those
// that stay, it among them, are on the multiples of the new interval.
func (t *timeline) add(p spec.Point) {
	t.line.Points = append(t.line.Points, p)
	if points := t.line.Points; len(points) == spec.TimelineMax {
		for i := range len(points) / 2 {
			points[i] = points[2*i+1]
		}
		t.line.Points = points[:len(points)/2]
		t.line.IntervalMS *= 2
	}
}

// untilNext is the time until the next multiple of the interval, so that late
// timers do not add up.
func (t *timeline) untilNext(now int64) time.Duration {
	return time.Duration(t.line.IntervalMS-now%t.line.IntervalMS) * time.Millisecond
}

// points are those so far; nil: none.
func (t *timeline) points() *spec.Timeline {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.line.Points) == 0 {
		return nil
	}
	return &spec.Timeline{IntervalMS: t.line.IntervalMS, Points: append([]spec.Point(nil), t.line.Points...)}
}

// end takes no more points and returns those of the payload, which ended after
// wall: its end may be heard of late. 0: when is not known.
func (t *timeline) end(wall time.Duration) *spec.Timeline {
	t.mu.Lock()
	t.ended = true
	if t.timer != nil {
		t.timer.Stop()
	}
	for n := len(t.line.Points); wall > 0 && n > 0 && t.line.Points[n-1].AtMS > wall.Milliseconds(); n-- {
		t.line.Points = t.line.Points[:n-1]
	}
	t.mu.Unlock()
	return t.points()
}

// pressure is what the group waited for, when it has run for long enough.
func (e *execution) pressure() *spec.Pressure {
	if e.sandbox == nil || monotonic()-e.started < spec.PressureAfterMS*time.Millisecond {
		return nil
	}
	p, err := e.group.Pressure()
	if err != nil {
		return nil // not measured is null, and nothing is decided by it
	}
	r := &spec.Pressure{CPUSomeMS: millis(p.SomeCPU), MemorySomeMS: millis(p.SomeMemory), IOSomeMS: millis(p.SomeIO),
		MemoryFullMS: millis(p.FullMemory), IOFullMS: millis(p.FullIO)}
	if *r == (spec.Pressure{}) {
		return nil
	}
	return r
}
