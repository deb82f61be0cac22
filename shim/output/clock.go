package output

import (
	"math"
	"time"

	"github.com/capsule-run/capsule/shim/shimapi/times"
)

// clockEvery is after how many bytes that came without a pause the clock is
// read again: a reading costs as much as copying a kilobyte.
const clockEvery = 256 << 10

// clock notes when bytes came.
type clock struct {
	index times.Index
	// idle: the reader has waited since the clock was read.
	idle bool
	// read is the offset at which the clock was read.
	read int64
}

// tick notes the time of the bytes from offset on, those before start being
// dropped already, if the time may be another one than that of those before.
func (c *clock) tick(offset, start int64) {
	if !c.idle && offset-c.read < clockEvery {
		return
	}
	c.idle, c.read = false, offset
	c.index.Add(offset, start, time.Now())
}

// At is when the byte at offset came, and the offset of the next byte of which
// something else is known. Zero: it is not known, as of bytes that are not kept.
func (s *Stream) At(offset int64) (at time.Time, until int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if kept := s.store.start() + s.store.kept(); s.store.full() && offset >= kept {
		return time.Time{}, math.MaxInt64
	} else if at, until = s.clock.index.At(offset); s.store.full() {
		until = min(until, kept)
	}
	return at, until
}

// Since is the offset of the first byte that may have come at t or later, up to
// a step of times.Index too early; of what is still to come when there is none.
func (s *Stream) Since(t time.Time) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if offset, some := s.clock.index.Since(t); some {
		return offset
	}
	return s.total
}

// AppendTimes appends the encoded times.Index of the stream to b.
func (s *Stream) AppendTimes(b []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clock.index.Append(b)
}
