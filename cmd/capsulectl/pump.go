package main

import (
	"io"
	"sync"
)

// pump reads standard input once for several connections, one after the other.
// A read that blocks cannot be taken back; what it gives goes to the connection
// that is there by then.
type pump struct {
	chunks chan []byte

	mu    sync.Mutex
	rest  []byte
	err   error // why chunks is closed
	given bool  // the present source was given something
}

func newPump(r io.Reader) *pump {
	p := &pump{chunks: make(chan []byte)}
	go func() {
		defer close(p.chunks)
		buf := make([]byte, 32<<10)
		for {
			n, err := r.Read(buf)
			if n > 0 {
				p.chunks <- append([]byte(nil), buf[:n]...)
			}
			if err != nil {
				p.mu.Lock()
				p.err = err
				p.mu.Unlock()
				return
			}
		}
	}()
	return p
}

// inFlight says whether something was given to a source since the last call.
func (p *pump) inFlight() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	given := p.given
	p.given = false
	return given
}

// source is standard input for one connection.
type source struct {
	*pump
	ended chan struct{}
}

func (p *pump) source() *source { return &source{pump: p, ended: make(chan struct{})} }

// stop makes a Read that blocks return. What it did not take, the next source gets.
func (s *source) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.ended)
}

// Read gives what standard input gives.
func (s *source) Read(p []byte) (int, error) {
	if n, done := s.take(p, nil); n > 0 || done {
		return n, s.reason(n)
	}
	select {
	case chunk := <-s.chunks: // nil at the end
		n, _ := s.take(p, chunk)
		return n, s.reason(n)
	case <-s.ended:
		return 0, io.ErrClosedPipe
	}
}

// take stores a new chunk and copies what fits; done: this source has been stopped.
func (s *source) take(p, chunk []byte) (n int, done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rest = append(s.rest, chunk...)
	select {
	case <-s.ended:
		return 0, true
	default:
	}
	n = copy(p, s.rest)
	s.rest = s.rest[n:]
	s.given = s.given || n > 0
	return n, false
}

// reason is the error of a Read that gave n bytes.
func (s *source) reason(n int) error {
	if n > 0 {
		return nil
	}
	select {
	case <-s.ended:
		return io.ErrClosedPipe
	default:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}
