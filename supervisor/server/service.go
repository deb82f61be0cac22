package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"

	"github.com/capsule-run/capsule/spec/fault"
	supervisorv1 "github.com/capsule-run/capsule/supervisor/api/v1"
	"github.com/capsule-run/capsule/supervisor/api/wire"
)

// service lists the calls of one connection. All are streams for ttrpc's
// server, although most have one request and one response, which looks the same
// on the wire: the generated methods would let a caller that sends data on such
// a call make ttrpc call a method of a nil pointer, which ends the process, and
// would not let a caller cancel.
func (c *connection) service() *ttrpc.ServiceDesc {
	return &ttrpc.ServiceDesc{Streams: map[string]ttrpc.Stream{
		"Run":     unary(c, "Run", c.run),
		"Start":   unary(c, "Start", c.start),
		"Wait":    unary(c, "Wait", c.wait),
		"Kill":    unary(c, "Kill", c.kill),
		"List":    unary(c, "List", c.list),
		"Inspect": unary(c, "Inspect", c.inspect),
		"Stats":   unary(c, "Stats", c.stats),
		"Remove":  unary(c, "Remove", c.remove),
		"Prune":   unary(c, "Prune", c.prune),
		"Info":    unary(c, "Info", c.info),
		"Health":  unary(c, "Health", c.health),
		"Attach":  c.stream("Attach", func(ctx context.Context, s ttrpc.StreamServer) error { return c.attach(ctx, s, false) }),
		"Logs":    c.stream("Logs", func(ctx context.Context, s ttrpc.StreamServer) error { return c.attach(ctx, s, true) }),
		"Events":  c.stream("Events", c.events),
	}}
}

// unary makes a call with one request and one response. A caller that closes
// its side of the stream cancels it, and gets an empty response.
func unary[Q any, R any, PQ interface {
	*Q
	proto.Message
}, PR interface {
	*R
	proto.Message
}](c *connection, name string, f func(context.Context, PQ) (PR, error)) ttrpc.Stream {
	return ttrpc.Stream{Handler: func(ctx context.Context, s ttrpc.StreamServer) (any, error) {
		var answer PR
		err := c.call(name, false, func() error {
			request := PQ(new(Q))
			if err := s.RecvMsg(request); err != nil {
				return fault.Wrap(fault.InvalidValue, "decode the request", err)
			}
			large := &largeAnswer{c: c, ctx: ctx}
			ctx, cancel := context.WithCancel(context.WithValue(ctx, answerKey{}, large))
			defer cancel()
			left := cancelOnClose(ctx, cancel, s)
			var err error
			answer, err = f(ctx, request)
			if err != nil && left() {
				answer, err = PR(new(R)), nil
			}
			if err == nil && !large.room(proto.Size(answer)-large.held) {
				err = fault.New(fault.TooManyExecutions, name, "too many large answers wait for this user to take them").WithHint("Read them, or ask for less at a time.")
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		if size := proto.Size(answer); size > wire.MaxMessage-1024 {
			return nil, statusOf(fault.New(fault.OutOfRange, name, fmt.Sprintf("the answer has %d bytes, a message holds 4 MiB", size)).
				WithHint("Ask for less."))
		}
		return answer, nil
	}}
}

// cancelOnClose calls cancel when the caller closes its side of a call that has
// no further messages, and says whether it has.
func cancelOnClose(ctx context.Context, cancel func(), s ttrpc.StreamServer) (left func() bool) {
	gone := make(chan struct{})
	go func() {
		var err error
		for err == nil { // it ends when the handler has returned, at the latest
			var nothing supervisorv1.HealthRequest
			err = s.RecvMsg(&nothing)
		}
		if errors.Is(err, io.EOF) && ctx.Err() == nil {
			close(gone)
			cancel()
		}
	}()
	return func() bool {
		select {
		case <-gone:
			return true
		default:
			return false
		}
	}
}

// stream makes a call with many messages in both directions.
func (c *connection) stream(name string, f func(context.Context, ttrpc.StreamServer) error) ttrpc.Stream {
	return ttrpc.Stream{
		StreamingClient: true,
		StreamingServer: true,
		Handler: func(ctx context.Context, s ttrpc.StreamServer) (any, error) {
			return nil, c.call(name, true, func() error {
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				return f(ctx, s)
			})
		},
	}
}

// call runs one handler: within the connection's limits, with its panics and
// its errors made into a status.
func (c *connection) call(name string, stream bool, f func() error) error {
	if err := c.begin(stream); err != nil {
		return statusOf(err)
	}
	defer c.finish(stream)
	err := guarded(c.s.o.Log, name, f)
	cancelled := errors.Is(err, context.Canceled) || errors.Is(err, &fault.Fault{Code: fault.Cancelled})
	if cancelled && c.s.ctx.Err() != nil {
		// It was not the caller's wish: to the caller the supervisor is gone.
		err = fault.New(fault.Unreachable, name, "the supervisor ends")
	}
	return statusOf(err)
}

func (c *connection) begin(stream bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.ending:
		return fault.New(fault.Unreachable, "", "the connection has ended")
	case c.calls >= c.s.o.MaxCalls:
		return fault.New(fault.OutOfRange, "", fmt.Sprintf("%d calls are open on this connection", c.calls)).
			WithHint("Wait for some of them to return.")
	case stream && c.streams >= c.s.o.MaxStreams:
		return fault.New(fault.OutOfRange, "", fmt.Sprintf("%d streams are open on this connection", c.streams)).
			WithHint("Close some of them, or use another connection.")
	}
	if err := c.account.mayCall(); err != nil {
		return err
	}
	if stream {
		if err := c.account.openStream(); err != nil {
			return err
		}
		c.streams++
	}
	c.calls++
	c.handlers.Add(1)
	return nil
}

func (c *connection) finish(stream bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls--
	if stream {
		c.streams--
		c.account.closeStream()
	}
	c.handlers.Done()
}

// guarded calls f; a panic of it is a fault and a line in the log.
func guarded(log *slog.Logger, name string, f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			log.Error("a call panicked", "call", name, "panic", v, "stack", string(debug.Stack()))
			err = fault.New(fault.SystemCall, name, "an internal error of the supervisor").
				WithHint("This is a bug of capsule; the supervisor's log has the details.")
		}
	}()
	return f()
}
