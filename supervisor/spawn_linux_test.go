package supervisor

import (
	"os"
	"testing"
)

// TestTimelineAmong: the points of all together are no closer than they may be, and the
// configuration is a lower bound of which there are multiples.
func TestTimelineAmong(t *testing.T) {
	for _, c := range []struct {
		configured int64
		running    int
		want       int64
	}{{0, 0, 100}, {0, 1, 100}, {0, 20, 100}, {0, 21, 200}, {100, 100, 500}, {100, 1000, 5000}, {1000, 100, 1000}, {1000, 201, 2000}, {-1, 1000, -1}} {
		if have := timelineAmong(c.configured, c.running); have != c.want {
			t.Errorf("%d ms among %d: %d, want %d", c.configured, c.running, have, c.want)
		}
	}
}

// TestTimelineOfWhatRuns: a daemon asks for points by what runs, and not by what waits.
func TestTimelineOfWhatRuns(t *testing.T) {
	s := testQueue(t) // one runs
	own := uint32(os.Geteuid())
	for range 60 {
		begin(t, s, own, doNothing)
	}
	points := func() int64 { return s.bootstrap(testID(1), own, nil).TimelineMS }
	if have := points(); have != 100 {
		t.Errorf("%d ms beside one that runs and 60 that wait", have)
	}
	for range 59 {
		s.daemon.queue.Adopt(0, 0)
	}
	if have := points(); have != 300 {
		t.Errorf("%d ms among 60", have)
	}
}
