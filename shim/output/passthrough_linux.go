package output

import (
	"errors"
	"io"
	"os"
	"syscall"
	"time"
)

// PipeTo passes what follows into w, the write end of a pipe in Go's poller, and
// returns nil at the end of the stream. While nothing more is kept and nobody else
// wants the bytes, it moves them within the kernel without copying. Its errors are
// those of Next and, when nobody reads the pipe, EPIPE. Like Next it is for one
// goroutine; after Close it returns once the reader of w has made room, or w is closed.
func (b *Subscription) PipeTo(w *os.File) error {
	to, err := w.SyscallConn()
	if err != nil {
		return err
	}
	for {
		c, err := b.next(true)
		switch {
		case err == errDirect:
			err = b.move(to)
		case err == nil:
			_, err = w.Write(c.Data)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// move passes bytes from pipe to pipe for as long as mayMove is true. It is called
// while b is the mover, which keeps the stream's own reader away.
func (b *Subscription) move(to syscall.RawConn) error {
	for {
		result, err := b.moveOnce(to)
		b.s.tellLimit()
		if err == nil && result == moveFull {
			err = to.Write(func(fd uintptr) bool { return writable(int(fd)) })
		}
		if err != nil || result == moveOver {
			return err
		}
	}
}

// moveResult is what became of one attempt to move bytes.
type moveResult int

const (
	moveOver moveResult = iota // by this way nothing more is to be moved
	moveSome                   // try again
	moveWait                   // there is nothing
	moveFull                   // the target takes no more
)

// moveOnce waits for bytes and moves them. An error is one of the target's.
func (b *Subscription) moveOnce(to syscall.RawConn) (result moveResult, sendErr error) {
	s := b.s
	err := s.raw.Read(func(from uintptr) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		result = moveOver
		if !b.mayMove() {
			return true
		}
		var failed error
		sendErr = to.Control(func(fd uintptr) { result, failed = b.splice(int(from), int(fd)) })
		if sendErr == nil {
			sendErr = failed
		}
		return sendErr != nil || result != moveWait
	})
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.flush()
		s.setDeadline(time.Time{})
		return moveSome, nil
	case err != nil:
		s.abort(err)
		return moveOver, nil
	}
	return result, sendErr
}

// splice moves once, without waiting. The lock is held.
func (b *Subscription) splice(from, to int) (moveResult, error) {
	s := b.s
	n, err := moveNow(from, to)
	switch {
	case err == syscall.EAGAIN && !readable(from):
		s.clock.idle = true
		return moveWait, nil
	case err == syscall.EAGAIN && !writable(to):
		return moveFull, nil
	case err == syscall.EAGAIN:
		// The reader has made room meanwhile. To wait for the source now could be for
		// ever: the poller tells of bytes when they come, and a full pipe gets none.
		return moveSome, nil
	case err == syscall.EPIPE:
		return moveOver, err
	case err != nil:
		// Reading tells whether it is the source; if not, it still works.
		s.unmovable = true
		return moveOver, nil
	case n == 0:
		s.end()
		return moveOver, nil
	}
	s.live = chunk{}
	s.add(n)
	b.pos = s.total
	if s.keptSubs > 0 {
		s.changed.Broadcast()
	}
	return moveSome, nil
}
