package denials

import "time"

// How many refused calls are answered at once, and how many in a second after
// that. At some five microseconds each the latter is a tenth of one core.
const (
	burst     = 20000
	perSecond = 20000
	// pause is the shortest sleep: calls are answered in batches of that.
	pause = 5 * time.Millisecond
)

// pace is a bucket of answers that fills with time.
type pace struct {
	left int64
	at   time.Time
}

func newPace(now time.Time) pace { return pace{left: burst, at: now} }

// wait takes one answer from the bucket and sleeps while it is empty.
func (p *pace) wait(now func() time.Time, sleep func(time.Duration)) {
	for p.left == 0 {
		t := now()
		p.left = min(burst, int64(t.Sub(p.at).Seconds()*perSecond))
		p.at = t
		if p.left == 0 {
			sleep(pause)
		}
	}
	p.left--
}
