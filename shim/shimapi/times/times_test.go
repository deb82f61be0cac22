package times

import (
	"math"
	"testing"
	"time"
)

// begin is when the streams of these tests begin.
var begin = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// steady is an index of n bytes that came one by one.
func steady(n int, apart time.Duration) *Index {
	x := &Index{}
	for i := range n {
		x.Add(int64(i), 0, begin.Add(time.Duration(i)*apart))
	}
	return x
}

func TestBytesHaveTheTimeAtWhichTheyCame(t *testing.T) {
	x := &Index{}
	x.Add(0, 0, begin)
	x.Add(10, 0, begin.Add(500*time.Microsecond)) // within the step
	x.Add(20, 0, begin.Add(time.Second))
	x.Add(30, 0, begin.Add(time.Minute))
	for _, c := range []struct {
		offset int64
		after  time.Duration
		until  int64
	}{{0, 0, 20}, {15, 0, 20}, {20, time.Second, 30}, {29, time.Second, 30}, {30, time.Minute, math.MaxInt64}, {99, time.Minute, math.MaxInt64}} {
		if at, until := x.At(c.offset); !at.Equal(begin.Add(c.after)) || until != c.until {
			t.Errorf("byte %d: %v until %d", c.offset, at, until)
		}
	}
	for _, c := range []struct {
		since  time.Duration
		offset int64
		some   bool
	}{{-time.Hour, 0, true}, {0, 0, true}, {2 * time.Millisecond, 20, true}, {time.Second, 20, true}, {2 * time.Second, 30, true}, {time.Hour, 0, false}} {
		if offset, some := x.Since(begin.Add(c.since)); offset != c.offset || some != c.some {
			t.Errorf("since %v: %d %v", c.since, offset, some)
		}
	}
}

func TestAnEmptyIndexKnowsNothing(t *testing.T) {
	x := &Index{}
	if at, until := x.At(5); !at.IsZero() || until != math.MaxInt64 {
		t.Errorf("a time: %v until %d", at, until)
	}
	if offset, some := x.Since(begin); offset != 0 || !some {
		t.Errorf("since: %d %v", offset, some)
	}
}

// However long a stream is, its index has a bound, and what it says of a byte is
// wrong by less than its step, always towards too early.
func TestALongIndexIsBounded(t *testing.T) {
	const bytes = 50 * most
	apart := 100 * time.Millisecond
	x := steady(bytes, apart)
	if len(x.marks) > most || x.step > 30*time.Second {
		t.Fatalf("%d marks, step %v", len(x.marks), x.step)
	}
	for i := 0; i < bytes; i += 97 {
		came := begin.Add(time.Duration(i) * apart)
		at, _ := x.At(int64(i))
		if late := came.Sub(at); late < 0 || late >= x.step {
			t.Fatalf("byte %d came at %v, the index says %v", i, came, at)
		}
		offset, some := x.Since(came)
		if !some || offset > int64(i) || time.Duration(int64(i)-offset)*apart > 2*x.step {
			t.Fatalf("since byte %d: %d %v", i, offset, some)
		}
	}
}

// A tail needs no marks of what it has dropped.
func TestMarksOfDroppedBytesGoFirst(t *testing.T) {
	x := &Index{}
	for i := range int64(10 * most) {
		x.Add(i, i-100, begin.Add(time.Duration(i)*time.Millisecond))
	}
	if x.step != firstStep || len(x.marks) > most {
		t.Errorf("step %v, %d marks", x.step, len(x.marks))
	}
}

func TestAnIndexComesBackAsItWas(t *testing.T) {
	for _, x := range []*Index{{}, steady(1, 0), steady(3*most, 7*time.Millisecond)} {
		b := x.Append([]byte("before"))
		got, rest, err := Decode(append(b[len("before"):], "after"...))
		if err != nil || string(rest) != "after" || len(got.marks) != len(x.marks) {
			t.Fatalf("%v, rest %q", err, rest)
		}
		for offset := int64(0); offset < 3*most; offset += 13 {
			want, until := x.At(offset)
			if at, u := got.At(offset); u != until || at.Sub(want).Abs() > time.Microsecond {
				t.Fatalf("byte %d: %v until %d, want %v until %d", offset, at, u, want, until)
			}
		}
		for i := range b[6:] {
			if _, _, err := Decode(b[6 : 6+i]); err == nil {
				t.Fatalf("the first %d bytes alone are taken for an index", i)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(steady(5, time.Second).Append(nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		x, rest, err := Decode(b)
		if err != nil {
			return
		}
		x.At(1 << 40)
		x.Since(begin)
		if again, _, err := Decode(x.Append(nil)); err != nil || len(again.marks) != len(x.marks) || len(rest) > len(b) {
			t.Errorf("what was decoded does not come back: %v", err)
		}
	})
}
