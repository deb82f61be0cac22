package shim

import (
	"context"
	"errors"
	"io"
	"math"
	"os"
	"sync"
	"time"

	"github.com/capsule-run/capsule/runtime/wire"
	"github.com/capsule-run/capsule/shim/output"
	"github.com/capsule-run/capsule/shim/shimapi"
)

// attachment sends output to one caller, within the window that the caller
// acknowledges.
type attachment struct {
	ctx    context.Context // ends with the caller, or when it leaves
	leave  context.CancelFunc
	stream *wire.Stream
	credit chan struct{} // one element for each message that may be sent
	closed chan struct{} // closed when the caller sends nothing more
	hold   bool
	once   bool // end after what is kept now
	times  bool // tell when the bytes came
}

// Attach is the call of shim.proto.
func (s *service) Attach(ctx context.Context, to *wire.Stream) error {
	m, err := to.Recv()
	if err != nil {
		return err
	}
	r := readAttach(m)
	select {
	case <-s.e.prepared:
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.e.stdio.stdout == nil || s.e.stdio.stderr == nil {
		return nil // creation failed: there is no output
	}
	ctx, leave := context.WithCancel(ctx)
	a := &attachment{ctx: ctx, leave: leave, stream: to, credit: make(chan struct{}, shimapi.Window), closed: make(chan struct{}), hold: r.hold, once: r.noFollow, times: r.times}
	if a.grant(shimapi.Window); r.window > 0 {
		for range shimapi.Window - min(r.window, shimapi.Window) {
			<-a.credit
		}
	}
	go a.acknowledge()
	want := map[uint64]bool{}
	for _, stream := range r.streams {
		want[stream] = true
	}
	all := len(want) == 0
	var wg sync.WaitGroup
	errs := make([]error, 2)
	follow := func(i int, id uint64, stream *output.Stream, from int64) {
		if !all && !want[id] {
			return
		}
		if r.since != 0 {
			from = max(from, stream.Since(time.Unix(0, r.since)))
		}
		sub := s.e.takeHeld(i, a.hold && from == 0)
		if sub == nil {
			sub = a.subscribe(stream, from)
		}
		stop := context.AfterFunc(ctx, sub.Close)
		wg.Go(func() {
			defer sub.Close()
			defer stop()
			errs[i] = a.copy(id, stream, sub, max(from, 0))
		})
	}
	follow(0, streamStdout, s.e.stdio.stdout, r.stdoutOffset)
	follow(1, streamStderr, s.e.stdio.stderr, r.stderrOffset)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	// ttrpc complains of an acknowledgement that comes after the end.
	<-a.closed
	return nil
}

// acknowledge takes the caller's acknowledgements until the stream ends, by which
// a caller leaves.
func (a *attachment) acknowledge() {
	defer close(a.closed)
	defer a.leave()
	for {
		m, err := a.stream.Recv()
		if err != nil {
			return // a caller that is lost ends ctx too
		}
		a.grant(readAttach(m).acknowledged)
	}
}

// grant allows n more messages, at most shimapi.Window in all.
func (a *attachment) grant(n int32) {
	for range min(n, shimapi.Window) {
		select {
		case a.credit <- struct{}{}:
		default:
			return
		}
	}
}

func (a *attachment) subscribe(stream *output.Stream, from int64) *output.Subscription {
	if a.hold && !a.once {
		return stream.Subscribe(from)
	}
	return stream.SubscribeKept(from)
}

// copy sends one stream from offset at to its end.
func (a *attachment) copy(id uint64, stream *output.Stream, from *output.Subscription, at int64) error {
	until := int64(math.MaxInt64)
	if a.once {
		until = stream.KeptEnd()
	}
	for at < until {
		c, err := from.Next()
		if errors.Is(err, io.EOF) || errors.Is(err, os.ErrClosed) {
			break
		}
		if err != nil {
			return err
		}
		if err := a.pass(id, stream, c); err != nil {
			return err
		}
		at = c.Offset + int64(len(c.Data))
	}
	return a.send(attachResponse{stream: id, offset: stream.Counts().BytesTotal})
}

// pass sends a chunk, in as many messages as it has times.
func (a *attachment) pass(id uint64, stream *output.Stream, c output.Chunk) error {
	for len(c.Data) > 0 {
		m := attachResponse{stream: id, data: c.Data, offset: c.Offset}
		if a.times {
			came, until := stream.At(c.Offset)
			m.data = c.Data[:min(int64(len(c.Data)), until-c.Offset)]
			if !came.IsZero() {
				m.time = came.UnixNano()
			}
		}
		select {
		case <-a.credit:
		case <-a.ctx.Done():
			return a.ctx.Err()
		}
		if err := a.send(m); err != nil {
			return err
		}
		c.Offset, c.Data = c.Offset+int64(len(m.data)), c.Data[len(m.data):]
	}
	return nil
}

func (a *attachment) send(m attachResponse) error { return a.stream.Send(m.head(), m.data) }

// WriteStdin is the call of shim.proto.
func (s *service) WriteStdin(ctx context.Context, from *wire.Stream) error {
	select {
	case <-s.e.prepared:
	case <-ctx.Done():
		return ctx.Err()
	}
	w := s.e.stdio.stdin
	taken := 0
	for {
		m, err := from.Recv()
		if err != nil { // io.EOF or a lost caller: either way nothing more comes
			if w != nil {
				_ = w.Close() // nothing is buffered
			}
			return nil
		}
		if w != nil {
			if _, err := w.Write(m.Message(1)); err != nil {
				w = nil // EPIPE: the command reads no more; the rest is discarded
			}
		}
		if taken++; taken == shimapi.Window/2 {
			if err := from.Send(wire.Message(nil).PutUint(1, uint64(taken)), nil); err != nil {
				return err
			}
			taken = 0
		}
	}
}
