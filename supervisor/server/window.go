package server

import (
	"context"
	"io"
	"sync"

	"github.com/capsule-run/capsule/spec/fault"
	supervisorv1 "github.com/capsule-run/capsule/supervisor/api/v1"
	"github.com/capsule-run/capsule/supervisor/api/wire"
)

// credit has one element for each message with data that may be sent.
type credit chan struct{}

func newCredit() credit {
	c := make(credit, wire.Window)
	for range wire.Window {
		c <- struct{}{}
	}
	return c
}

// take waits until one more message may be sent.
func (c credit) take(ctx context.Context) error {
	// Not both at once: a select among several that are ready is random.
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// grant allows n more messages.
func (c credit) grant(n int32) error {
	if n < 0 || n > wire.Window {
		return fault.New(fault.OutOfRange, "acknowledge", "more messages than can be under way").WithField("/acknowledged")
	}
	for range n {
		select {
		case c <- struct{}{}:
		default:
			return fault.New(fault.OutOfRange, "acknowledge", "more messages than were under way").WithField("/acknowledged")
		}
	}
	return nil
}

// ackEvery is how many messages of stdin are acknowledged at once.
const ackEvery = wire.Window / 2

// stdin is a reader of what a caller sends: a queue of a window's length.
type stdin struct {
	ctx     context.Context
	took    func(n int32)
	account *account

	mu     sync.Mutex
	queue  [][]byte // messages that are not taken, the first perhaps in part
	under  int      // messages that are not acknowledged
	ended  bool     // nothing more comes
	left   bool     // nobody reads any more
	change chan struct{}
}

func newStdin(ctx context.Context, account *account, took func(int32)) *stdin {
	return &stdin{ctx: ctx, took: took, account: account, change: make(chan struct{}, 1)}
}

// put takes what a message has of stdin. It never blocks. A caller that has no
// stdin, or sends more than it may, is at fault.
func (s *stdin) put(r *supervisorv1.AttachRequest) error {
	if len(r.StdinData) == 0 && !r.StdinEnd {
		return nil
	}
	if s == nil {
		return fault.New(fault.InvalidValue, "attach", "there is stdin, of which the first message said nothing").WithField("/stdin")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case len(r.StdinData) > maxStdin:
		return fault.New(fault.OutOfRange, "attach", "a message has more than 128 KiB of stdin").WithField("/stdin_data")
	case s.ended:
		return fault.New(fault.InvalidValue, "attach", "stdin has ended already").WithField("/stdin_data")
	case len(r.StdinData) > 0 && s.under >= wire.Window:
		return fault.New(fault.OutOfRange, "attach", "more than 32 messages of stdin are not acknowledged").WithField("/stdin_data")
	}
	s.ended = r.StdinEnd
	if len(r.StdinData) > 0 {
		s.under++
		if !s.left {
			if err := s.account.hold(len(r.StdinData)); err != nil {
				return err
			}
			s.queue = append(s.queue, r.StdinData)
		}
	}
	s.wake()
	return nil
}

func (s *stdin) wake() {
	select {
	case s.change <- struct{}{}:
	default:
	}
}

// Read implements io.Reader. It is not for concurrent use.
func (s *stdin) Read(p []byte) (int, error) {
	for {
		n, taken, err := s.next(p)
		if taken > 0 {
			s.took(taken)
		}
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
		select {
		case <-s.change:
		case <-s.ctx.Done():
			return 0, context.Cause(s.ctx)
		}
	}
}

// next copies what is there and says how many messages are to be acknowledged.
func (s *stdin) next(p []byte) (n int, taken int32, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left {
		return 0, 0, io.ErrClosedPipe
	}
	for len(s.queue) > 0 && n < len(p) {
		k := copy(p[n:], s.queue[0])
		n += k
		s.account.drop(k)
		if s.queue[0] = s.queue[0][k:]; len(s.queue[0]) == 0 {
			s.queue[0] = nil
			s.queue = s.queue[1:]
		}
	}
	if done := s.under - len(s.queue); done >= ackEvery || done > 0 && s.ended && len(s.queue) == 0 {
		s.under -= done
		taken = int32(done)
	}
	if n == 0 && len(s.queue) == 0 && s.ended {
		err = io.EOF
	}
	return n, taken, err
}

// abandon ends reading for good.
func (s *stdin) abandon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = true
	for _, data := range s.queue {
		s.account.drop(len(data))
	}
	s.queue = nil
	s.wake()
}
