package denials

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/capsule-run/capsule/spec"
)

func never() string { panic("asked again") }

func TestRecord(t *testing.T) {
	var r Record
	if r.List() != nil {
		t.Errorf("nothing was refused: %v", r.List())
	}
	text := func(s string) func() string { return func() string { return s } }
	r.add("unshare", "EPERM", 7, text("flags 0x10"), text("sh"))
	r.add("unshare", "EPERM", 7, never, never)
	r.add("unshare", "EPERM", 8, never, text("sh"))
	r.add("unshare", "EPERM", 9, never, text(""))
	r.add("mount", "EPERM", 7, text(""), text(""))
	want := []spec.Denial{{Kind: "syscall", Name: "unshare", Count: 4, Detail: "EPERM; flags 0x10; by sh"}, {Kind: "syscall", Name: "mount", Count: 1, Detail: "EPERM"}}
	if got := r.List(); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if call, forced := r.Killed(); call != "" || forced {
		t.Errorf("killed for %q", call)
	}
	r.kill("init_module", false)
	r.kill("kexec_load", true)
	if call, forced := r.Killed(); call != "init_module" || !forced {
		t.Errorf("killed for %q, forced %v", call, forced)
	}
}

// TestRecordIsBounded: neither many calls nor many processes make it grow.
func TestRecordIsBounded(t *testing.T) {
	var r Record
	asked := 0
	for i := range uint32(100000) {
		r.add(fmt.Sprint("syscall ", i%1000), "ENOSYS", i, func() string { return "" }, func() string { asked++; return fmt.Sprint(i) })
	}
	list := r.List()
	total := int64(0)
	for _, d := range list {
		total += d.Count
	}
	if len(list) != maxCalls+1 || total != 100000 || list[0].Name != OtherCalls || asked > (maxCalls+1)*maxNames {
		t.Errorf("%d entries, %d calls, first %v, %d names looked up", len(list), total, list[0], asked)
	}
}

func TestPrintable(t *testing.T) {
	if got := printable("a\x1b[2J\n\xffé"); got != "a?[2J???" {
		t.Errorf("%q", got)
	}
}

// TestPace: a burst at once, then so many in a second, and a burst again after
// a quiet time.
func TestPace(t *testing.T) {
	now := time.Unix(0, 0)
	var slept time.Duration
	clock, sleep := func() time.Time { return now }, func(d time.Duration) { slept += d; now = now.Add(d) }
	p := newPace(now)
	for range burst {
		p.wait(clock, sleep)
	}
	if slept != 0 {
		t.Errorf("a burst takes %v", slept)
	}
	for range perSecond {
		p.wait(clock, sleep)
	}
	if slept < 990*time.Millisecond || slept > 1010*time.Millisecond {
		t.Errorf("a second's worth takes %v", slept)
	}
	now = now.Add(time.Hour)
	slept = 0
	for range burst {
		p.wait(clock, sleep)
	}
	if slept > 2*pause {
		t.Errorf("after an hour a burst takes %v", slept)
	}
}
