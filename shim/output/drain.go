package output

import (
	"syscall"
	"time"
)

// Drain waits for the writers that may outlive the payload, and is called when
// the payload has exited. It returns true when no writer is left: then every
// byte has been read or stands in the pipe for Finish, and Drain has waited for
// nothing. Otherwise it returns true at the end of the stream, and false when
// no byte came for quiet or when max has passed; both are at least zero. While
// a subscriber holds the reader up, only max counts, because silence could not be told.
// A writer that gets no CPU for quiet is silent: nothing tells it from one that sleeps.
// Afterwards the caller kills the tree and calls Finish.
func (s *Stream) Drain(quiet, max time.Duration) bool {
	s.mu.Lock()
	if s.over() {
		s.mu.Unlock()
		return true
	}
	if s.drained == nil {
		s.drained = make(chan struct{})
	}
	start := time.Now()
	s.lastByte = start
	s.mu.Unlock()

	timer := time.NewTimer(min(quiet, max))
	defer timer.Stop()
	for {
		select {
		case <-s.drained:
			return true
		case now := <-timer.C:
			wait, over := s.drainMore(now, quiet)
			if over {
				return true
			}
			wait = min(wait, max-now.Sub(start))
			if wait <= 0 {
				return false
			}
			timer.Reset(wait)
		}
	}
}

// over tells whether the stream has ended or no writer is left to add to it.
// A process closes its descriptors before its parent can learn of its exit, so
// for a payload without survivors the answer is always yes.
func (s *Stream) over() bool {
	if s.ended || s.frozen {
		return true
	}
	gone := false
	err := s.raw.Control(func(fd uintptr) { gone = writersGone(int(fd)) })
	return err != nil || gone
}

// drainMore tells how much longer the stream must stay silent to count as
// quiet, zero or less when it already does, and whether it is over.
func (s *Stream) drainMore(now time.Time, quiet time.Duration) (wait time.Duration, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over() {
		return 0, true
	}
	return s.silence(now, quiet), false
}

// silence is how much of quiet is left at now. Bytes that wait in the pipe are
// not silence: on a busy host the reader may be the one that is late.
func (s *Stream) silence(now time.Time, quiet time.Duration) time.Duration {
	waiting := 0
	// Without the count only what was read speaks against silence.
	_ = s.raw.Control(func(fd uintptr) { waiting, _ = queued(int(fd)) })
	if waiting > 0 || s.stalled() {
		s.lastByte = now
	}
	return quiet - now.Sub(s.lastByte)
}

// Finish reads what already is in the pipe, closes it and freezes the counts.
// It waits for nobody: bytes that subscribers have not taken stay for them, and
// a writer that is still alive gets EPIPE. Further calls do nothing.
func (s *Stream) Finish() {
	s.mu.Lock()
	if s.frozen {
		s.mu.Unlock()
		return
	}
	if !s.ended {
		if err := s.raw.Control(func(fd uintptr) { s.pullRest(int(fd)) }); err != nil {
			s.endWith(err)
		}
		s.end()
	}
	s.frozen = true
	s.discard.close()
	if len(s.subs) == 0 {
		s.buf, s.live = nil, chunk{}
	}
	s.changed.Broadcast()
	s.mu.Unlock()
	s.pipe.Close() // Only read from. The reader, if it still waits in the poller, ends here.
	s.tellLimit()
}

// pullRest reads what the pipe holds at this moment and no more, so that a
// writer that cannot be killed does not hold up the end.
func (s *Stream) pullRest(fd int) {
	left, err := queued(fd)
	if err != nil {
		s.endWith(err)
		return
	}
	s.clock.idle = true
	// A subscriber may still hold the read buffer; its lagging readers need
	// these bytes after it, in one piece of their own.
	keep := len(s.subs) > 0
	var rest []byte
	if keep {
		rest = make([]byte, 0, left)
		s.rest.offset = s.total
	} else if need := min(left, fullRead); len(s.buf) < need {
		s.buf = make([]byte, max(need, firstRead))
	}
	for left > 0 {
		buf := s.buf
		if keep {
			buf = rest[len(rest):cap(rest)]
		}
		n, err := readNow(fd, buf[:min(left, len(buf))])
		if err != nil && err != syscall.EAGAIN {
			s.endWith(err)
		}
		if n == 0 {
			// EAGAIN: a payload that opened the pipe anew reads its own output.
			return
		}
		s.keep(buf[:n])
		left -= n
		if keep {
			rest = rest[:len(rest)+n]
			s.rest.data = rest
		}
		s.count(n)
	}
}

// Close finishes the stream and gives its memory and its file's descriptor
// back; the file stays. Subscribers that have not come to the end get
// os.ErrClosed. Further calls do nothing.
func (s *Stream) Close() error {
	s.Finish()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.live, s.rest = chunk{}, chunk{}
	s.changed.Broadcast()
	if err := s.store.close(); err != nil {
		return captureFault("close", s.cfg.Name, err)
	}
	return nil
}
