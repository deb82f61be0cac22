package shim

import (
	"context"
	"errors"
	"io"
	"math"
	"os"
	"sync"
	"time"

	"github.com/capsule-run/capsule/shim/output"
	"github.com/capsule-run/capsule/shim/shimapi"
	shimv1 "github.com/capsule-run/capsule/shim/shimapi/v1"
)

// attachment sends output to one caller, within the window that the caller
// acknowledges.
type attachment struct {
	ctx    context.Context
	stream shimv1.Shim_AttachServer
	credit chan struct{} // one element for each message that may be sent
	closed chan struct{} // closed when the caller sends nothing more
	hold   bool
	once   bool       // end after what is kept now
	times  bool       // tell when the bytes came
	mu     sync.Mutex // one message at a time
}

// Attach implements shimv1.ShimService.
func (s *service) Attach(ctx context.Context, to shimv1.Shim_AttachServer) error {
	r, err := to.Recv()
	if err != nil {
		return err
	}
	select {
	case <-s.e.prepared:
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.e.stdio.stdout == nil || s.e.stdio.stderr == nil {
		return nil // creation failed: there is no output
	}
	a := &attachment{ctx: ctx, stream: to, credit: make(chan struct{}, shimapi.Window), closed: make(chan struct{}), hold: r.Hold, once: r.NoFollow, times: r.Times}
	if a.grant(shimapi.Window); r.Window > 0 {
		for range shimapi.Window - min(r.Window, shimapi.Window) {
			<-a.credit
		}
	}
	go a.acknowledge()
	want := map[shimv1.Stream]bool{}
	for _, stream := range r.Streams {
		want[stream] = true
	}
	all := len(want) == 0
	var wg sync.WaitGroup
	errs := make([]error, 2)
	follow := func(i int, id shimv1.Stream, stream *output.Stream, from int64) {
		if !all && !want[id] {
			return
		}
		if r.Since != 0 {
			from = max(from, stream.Since(time.Unix(0, r.Since)))
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
	follow(0, shimv1.Stream_STREAM_STDOUT, s.e.stdio.stdout, r.StdoutOffset)
	follow(1, shimv1.Stream_STREAM_STDERR, s.e.stdio.stderr, r.StderrOffset)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	// ttrpc complains of an acknowledgement that comes after the end.
	<-a.closed
	return nil
}

// acknowledge takes the caller's acknowledgements until the stream ends.
func (a *attachment) acknowledge() {
	defer close(a.closed)
	for {
		r, err := a.stream.Recv()
		if err != nil {
			return // a caller that is lost ends ctx too
		}
		a.grant(r.Acknowledged)
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
func (a *attachment) copy(id shimv1.Stream, stream *output.Stream, from *output.Subscription, at int64) error {
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
	return a.send(&shimv1.AttachResponse{Stream: id, Offset: stream.Counts().BytesTotal})
}

// pass sends a chunk, in as many messages as it has times.
func (a *attachment) pass(id shimv1.Stream, stream *output.Stream, c output.Chunk) error {
	for len(c.Data) > 0 {
		m := &shimv1.AttachResponse{Stream: id, Data: c.Data, Offset: c.Offset}
		if a.times {
			came, until := stream.At(c.Offset)
			m.Data = c.Data[:min(int64(len(c.Data)), until-c.Offset)]
			if !came.IsZero() {
				m.Time = came.UnixNano()
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
		c.Offset, c.Data = c.Offset+int64(len(m.Data)), c.Data[len(m.Data):]
	}
	return nil
}

func (a *attachment) send(m *shimv1.AttachResponse) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stream.Send(m)
}

// WriteStdin implements shimv1.ShimService.
func (s *service) WriteStdin(ctx context.Context, from shimv1.Shim_WriteStdinServer) error {
	select {
	case <-s.e.prepared:
	case <-ctx.Done():
		return ctx.Err()
	}
	w := s.e.stdio.stdin
	taken := int32(0)
	for {
		m, err := from.Recv()
		if err != nil { // io.EOF or a lost caller: either way nothing more comes
			if w != nil {
				_ = w.Close() // nothing is buffered
			}
			return nil
		}
		if w != nil {
			if _, err := w.Write(m.Data); err != nil {
				w = nil // EPIPE: the command reads no more; the rest is discarded
			}
		}
		if taken++; taken == shimapi.Window/2 {
			if err := from.Send(&shimv1.WriteStdinResponse{Acknowledged: taken}); err != nil {
				return err
			}
			taken = 0
		}
	}
}
