package output

import (
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/capsule-run/capsule/spec"
)

// chunk is a run of bytes at its offset in the stream.
type chunk struct {
	offset int64
	data   []byte
}

// end is the offset after the last byte.
func (c chunk) end() int64 { return c.offset + int64(len(c.data)) }

// read is the reader's goroutine. It ends at end of file, or when Finish
// closes the pipe under it.
func (s *Stream) read() {
	pull, timed := s.pull, false
	for s.awaitSubscribers() {
		err := s.raw.Read(pull)
		s.tellLimit()
		switch {
		case err == nil:
			if !timed && s.flushDue() {
				timed = true
				s.setDeadline(time.Now().Add(flushAfter))
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
			s.flush()
			s.setDeadline(time.Time{})
		default:
			s.abort(err)
		}
	}
}

// setDeadline bounds the wait of the next read. It fails only when Finish has
// closed the pipe, which the next read finds out too.
func (s *Stream) setDeadline(t time.Time) { _ = s.pipe.SetReadDeadline(t) }

// awaitSubscribers waits until every subscriber took what was read, and while one
// moves bytes in place of this reader. It is
// false when there is nothing more to read.
func (s *Stream) awaitSubscribers() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.ended && !s.frozen && (s.stalled() || s.mover != nil) {
		s.clock.idle = true
		s.changed.Wait()
	}
	return !s.ended && !s.frozen
}

// stalled tells whether a subscriber has not yet taken all that was read.
func (s *Stream) stalled() bool {
	for _, b := range s.subs {
		if b.lent || b.pos < s.total {
			return true
		}
	}
	return false
}

// pull reads once without waiting. It is false when the pipe is empty, which
// makes the poller wait and call it again. The lock is held around the system
// call, so that a subscriber joins between two reads and never inside one.
func (s *Stream) pull(fd uintptr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.frozen || s.stalled() || s.mover != nil {
		return true
	}
	n, err, counted := s.pullCount(int(fd))
	if !counted {
		buf := s.readBuffer()
		if n, err = readNow(int(fd), buf); n > 0 {
			s.take(buf[:n])
		}
	}
	switch {
	case err == syscall.EAGAIN:
		s.clock.idle = true
		return false
	case err != nil:
		s.endWith(err)
	case n == 0:
		s.end()
	case n >= fullRead && !s.wide:
		s.wide = true
		widenPipe(int(fd))
	}
	return true
}

// pullCount counts and drops what the pipe holds when nobody wants the bytes,
// without copying them. counted is false when they have to be read.
func (s *Stream) pullCount(fd int) (n int, err error, counted bool) {
	// The first read goes the common way: a stream that stays empty never
	// opens anything.
	if s.total == 0 || len(s.subs) > 0 || !s.store.full() {
		return 0, nil, false
	}
	n, err, counted = s.discard.from(fd)
	if n > 0 {
		s.live = chunk{}
		s.count(n)
	}
	return n, err, counted
}

// readBuffer is the buffer for the next read: small until a read filled it.
// No subscriber holds a part of it, because the reader is not stalled.
func (s *Stream) readBuffer() []byte {
	switch {
	case s.buf == nil:
		s.buf = make([]byte, firstRead)
	case len(s.buf) == firstRead && len(s.live.data) == firstRead:
		s.buf = make([]byte, fullRead)
	}
	return s.buf
}

// take counts data, keeps what the policy allows and offers it to subscribers.
func (s *Stream) take(data []byte) {
	s.live = chunk{s.total, data}
	s.keep(data)
	s.count(len(data))
}

// keep stores of data, which begins at the total, what the policy allows.
func (s *Stream) keep(data []byte) {
	if !s.store.full() {
		s.clock.tick(s.total, s.store.start())
		s.store.append(data)
	}
}

// add adds n bytes to the total.
func (s *Stream) add(n int) {
	s.total += int64(n)
	s.limitHit = s.total > s.cfg.Limit
	if s.drained != nil {
		s.lastByte = time.Now()
	}
}

// count adds n bytes to the total and tells whoever waits for them.
func (s *Stream) count(n int) {
	s.add(n)
	if len(s.subs)+s.keptSubs > 0 {
		s.changed.Broadcast()
	}
}

// end marks that nothing more will be read.
func (s *Stream) end() {
	if s.ended {
		return
	}
	s.ended = true
	if s.drained != nil {
		close(s.drained)
	}
	s.changed.Broadcast()
}

// endWith ends the stream at a read error, which is remembered.
func (s *Stream) endWith(err error) {
	if s.readErr == nil {
		s.readErr = captureFault("read output", s.cfg.Name, err)
	}
	s.end()
}

// abort ends the stream after the poller failed. After Finish has closed the
// pipe that is the way in which the reader learns of it, and no fault.
func (s *Stream) abort(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.frozen {
		s.endWith(err)
	}
}

// flushDue tells whether bytes stand in memory alone.
func (s *Stream) flushDue() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.store.mem) > 0
}

// flush moves bytes that have become old from memory to the file.
func (s *Stream) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.frozen && len(s.store.mem) > 0 {
		// A failure costs nothing yet: the bytes stay in memory, and growth
		// beyond it tries again and then counts as a fault.
		_ = s.store.spill()
	}
}

// tellLimit calls OnLimit once, without the lock.
func (s *Stream) tellLimit() {
	s.mu.Lock()
	tell := s.limitHit && !s.limitTold && s.cfg.Policy == spec.OutputKill && s.cfg.OnLimit != nil
	s.limitTold = s.limitTold || tell
	s.mu.Unlock()
	if tell {
		s.cfg.OnLimit()
	}
}
