package client

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api/wire"
)

// ackEvery is how many messages are acknowledged at once.
const ackEvery = wire.Window / 2

// stream is one call with many messages. Its context is not the caller's: ttrpc
// would forget to tell the supervisor, and itself, that such a stream has ended.
type stream struct {
	s ttrpc.ClientStream

	mu     sync.Mutex // ttrpc's streams do not bear concurrent sends
	closed bool
}

// open begins a call.
func (c *Client) open(ctx context.Context, method string, first proto.Message) (*stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, wire.Fault(ctx, method, err)
	}
	s, err := c.rpc.NewStream(context.Background(), &ttrpc.StreamDesc{StreamingClient: true, StreamingServer: true}, wire.Service, method, nil)
	if err == nil {
		err = s.SendMsg(first)
	}
	if err != nil {
		return nil, wire.Fault(ctx, method, err)
	}
	return &stream{s: s}, nil
}

// send sends m unless the stream is closed, and says whether it could.
func (s *stream) send(m proto.Message) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	// An error is a lost connection, which receiving tells.
	return !s.closed && s.s.SendMsg(m) == nil
}

// close tells the supervisor that nothing more comes.
func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		_ = s.s.CloseSend() // as above
	}
}

// over notes that the supervisor has ended the stream, about which it is not to
// be told.
func (s *stream) over() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

// arrival is a message, or what ended the stream.
type arrival[T any] struct {
	message *T
	err     error
}

// errOverrun ends a stream on which more arrives than the window allows.
var errOverrun = fault.New(fault.Unreachable, "receive", "the supervisor breaks the protocol: it sends more than the window allows")

// receive takes messages until the stream ends, also when nobody takes them from
// it: there are never more than the window under way, and a few without data.
// The last one has an error.
func receive[T any, P interface {
	*T
	proto.Message
}](s *stream) <-chan arrival[T] {
	arrived := make(chan arrival[T], 2*wire.Window+1)
	go func() {
		full := false
		for {
			m := P(new(T))
			err := s.s.RecvMsg(m)
			if err != nil {
				s.over()
			}
			switch {
			case err != nil && full:
				return // that it was full is told already
			case err != nil:
				arrived <- arrival[T]{nil, err} // one place is kept for it
				return
			case full:
			case len(arrived) < 2*wire.Window:
				arrived <- arrival[T]{m, nil}
			default:
				// Nobody takes them any more, or the supervisor sends too much.
				full = true
				arrived <- arrival[T]{nil, errOverrun}
				s.close()
			}
		}
	}()
	return arrived
}

// ended is the error of a stream that ended with err; nil when it ended well.
func ended(ctx context.Context, op string, err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return wire.Fault(ctx, op, err)
}
