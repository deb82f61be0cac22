package supervisor

import "testing"

// TestTimelineAmong: the points of all together are no closer than they may be, and the
// configuration is a lower bound of which there are multiples.
func TestTimelineAmong(t *testing.T) {
	for _, c := range []struct {
		configured int64
		live       int
		want       int64
	}{{0, 0, 100}, {0, 1, 100}, {0, 20, 100}, {0, 21, 200}, {100, 100, 500}, {100, 1000, 5000}, {1000, 100, 1000}, {1000, 201, 2000}, {-1, 1000, -1}} {
		if have := timelineAmong(c.configured, c.live); have != c.want {
			t.Errorf("%d ms among %d: %d, want %d", c.configured, c.live, have, c.want)
		}
	}
}
