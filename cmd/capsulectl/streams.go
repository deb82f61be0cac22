package main

import (
	"errors"
	"io"
	"sync"
	"syscall"
)

// descriptor writes to standard output or standard error. Unlike an os.File it
// reports a pipe without a reader as EPIPE and does not raise SIGPIPE, so that
// the execution can be ended in order and the exit status is capsulectl's own;
// no signal handler is needed, and the shim inherits no ignored signal.
type descriptor int

// sink passes the payload's output to one of capsulectl's own streams. When that
// stream fails, the execution is ended, as a process that writes to a closed
// pipe would be, and the rest is swallowed so that the supervisor can finish.
type sink struct {
	w      io.Writer
	cancel func()

	mu  sync.Mutex
	n   int64
	err error
}

// Write never fails.
func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n += int64(len(p))
	if s.err != nil {
		return len(p), nil
	}
	if _, err := s.w.Write(p); err != nil {
		s.err = err
		s.cancel()
	}
	return len(p), nil
}

// failure is the error that ended the stream, nil for none.
func (s *sink) failure() error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// missing is how many of total bytes the supervisor never handed over.
func (s *sink) missing(total int64) int64 {
	if s == nil {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return total - s.n
}

// isBrokenPipe says that the reader of a stream has gone: nobody is interested,
// so nothing is reported either.
func isBrokenPipe(err error) bool { return errors.Is(err, syscall.EPIPE) }
