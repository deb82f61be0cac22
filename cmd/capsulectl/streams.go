package main

import (
	"errors"
	"io"
	"sync"
	"syscall"
)

// sink passes the payload's output to one of capsulectl's own streams. When that
// stream fails, the execution is ended, as a process that writes to a closed
// pipe would be, and the rest is swallowed so that the supervisor can finish.
type sink struct {
	w      io.Writer
	cancel func()

	mu  sync.Mutex
	err error
}

// Write never fails.
func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
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

// isBrokenPipe says that the reader of a stream has gone: nobody is interested,
// so nothing is reported either.
func isBrokenPipe(err error) bool { return errors.Is(err, syscall.EPIPE) }
