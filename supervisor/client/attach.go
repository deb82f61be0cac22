package client

import (
	"context"
	"io"
	"os"
	"sync"
	"time"

	"github.com/capsule-run/capsule/shim/shimapi/handover"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	supervisorv1 "github.com/capsule-run/capsule/supervisor/api/v1/plain"
	"github.com/capsule-run/capsule/supervisor/api/wire"
)

// Attach implements api.Supervisor. Each writer is written to by a goroutine of
// its own, and by none when Attach has returned; Missed is never called twice at
// once. A Stdin that blocks in Read when the output has ended is read once more
// after Attach has returned. A lost connection is E6004; call it again on another
// Client with the numbers of bytes that the writers got as offsets.
func (c *Client) Attach(ctx context.Context, id string, o *api.AttachOptions) error {
	return c.attach(ctx, id, o, nil)
}

// attach is Attach that closes taken, if there is one, when the supervisor has
// taken the whole of stdin.
func (c *Client) attach(ctx context.Context, id string, o *api.AttachOptions, taken chan<- struct{}) error {
	if o.NoFollow && o.Stdin != nil {
		without := *o
		without.Stdin = nil
		o = &without
	}
	first := &supervisorv1.AttachRequest{
		ExecutionId: id, StdoutOffset: o.StdoutOffset, StderrOffset: o.StderrOffset, Hold: o.Hold, Stdin: o.Stdin != nil,
		Since: wire.Nanos(o.Since), Times: o.Times != nil,
		Pipe: handover.Supported && o.Hold && !o.NoFollow && o.Times == nil,
	}
	a := &attachment{o: o, pipes: c.conn, sinks: map[supervisorv1.Stream]*sink{}, room: make(chan int32, wire.Window), over: make(chan struct{}), taken: taken}
	a.sink(supervisorv1.Stream_STREAM_STDOUT, "stdout", o.Stdout, o.StdoutOffset)
	a.sink(supervisorv1.Stream_STREAM_STDERR, "stderr", o.Stderr, o.StderrOffset)
	for id := range a.sinks {
		first.Streams = append(first.Streams, id)
	}
	if len(first.Streams) == 0 {
		first.Streams = []supervisorv1.Stream{supervisorv1.Stream_STREAM_UNSPECIFIED}
	}
	if err := ctx.Err(); err != nil {
		return wire.Fault(ctx, "attach", err)
	}
	// Its context is not the caller's: the supervisor is to be told of the end.
	open := c.api.Attach
	if o.NoFollow {
		open = func(ctx context.Context, first *supervisorv1.AttachRequest, waiting int) (supervisorv1.SupervisorAttach, error) {
			s, err := c.api.Logs(ctx, first, waiting)
			return supervisorv1.SupervisorAttach(s), err
		}
	}
	var err error
	if a.stream, err = open(context.Background(), first, mostWaiting); err != nil {
		return wire.Fault(ctx, "attach", err)
	}
	return a.run(ctx)
}

// ackEvery is how many messages are acknowledged at once.
const ackEvery = wire.Window / 2

// mostWaiting is how many messages of the supervisor may wait to be taken: never more than
// the window are under way, and a few without data.
const mostWaiting = 2 * wire.Window

// attachment is one call of Attach.
type attachment struct {
	stream supervisorv1.SupervisorAttach
	o      *api.AttachOptions
	pipes  *handover.Receiver
	sinks  map[supervisorv1.Stream]*sink
	room   chan int32      // acknowledged stdin
	over   chan struct{}   // closed when the call returns
	taken  chan<- struct{} // closed when all of stdin is acknowledged; may be nil

	mu       sync.Mutex
	unacked  int32 // messages that are written and not acknowledged
	missedMu sync.Mutex
}

// sink writes one stream.
type sink struct {
	name  string
	to    io.Writer
	at    int64 // position of the next byte
	queue chan part
	ended bool
	late  bool  // what is before the first byte is left out, and not missed
	came  int64 // what Times was told last
}

// part is a message, with the pipe that it announces.
type part struct {
	*supervisorv1.AttachResponse
	pipe *os.File // nil: none
}

func (a *attachment) sink(id supervisorv1.Stream, name string, to io.Writer, at int64) {
	if to != nil {
		a.sinks[id] = &sink{name: name, to: to, at: at, late: !a.o.Since.IsZero(), queue: make(chan part, wire.Window+2)}
	}
}

// run passes everything on until the end.
func (a *attachment) run(ctx context.Context) error {
	var writers sync.WaitGroup
	for _, s := range a.sinks {
		writers.Go(func() { a.write(s) })
	}
	if a.o.Stdin != nil {
		go a.sendStdin()
	}
	err := a.dispatch(ctx)
	if err != nil {
		close(a.over) // what is queued is not written
	}
	a.stream.CloseSend()
	for _, s := range a.sinks {
		if !s.ended {
			close(s.queue)
		}
	}
	writers.Wait()
	if err == nil {
		close(a.over)
	}
	return err
}

// dispatch takes what arrives and hands it to those who wait for it. It waits
// for nobody but the supervisor.
func (a *attachment) dispatch(ctx context.Context) error {
	open, exited := len(a.sinks), a.o.NoFollow
	for {
		select {
		case <-ctx.Done():
			return wire.Fault(ctx, "attach", ctx.Err())
		case message, ok := <-a.stream.In():
			if !ok {
				err := a.stream.Err()
				if open == 0 && exited && err == nil {
					return nil
				}
				return cutShort(ctx, err)
			}
			m := new(supervisorv1.AttachResponse)
			m.Decode(message)
			if err := a.take(m); err != nil {
				return err
			}
			if m.End {
				open--
			}
			exited = exited || m.Exited
			if open <= 0 && exited {
				a.stream.CloseSend() // the supervisor waits for it
			}
		}
	}
}

// cutShort is the error of a stream that ended, with err or well, before the output did.
func cutShort(ctx context.Context, err error) error {
	if err == nil {
		return fault.New(fault.Unreachable, "attach", "the supervisor ended the stream early")
	}
	return wire.Fault(ctx, "attach", err)
}

// take hands one message on.
func (a *attachment) take(m *supervisorv1.AttachResponse) error {
	broken := func(what string) error {
		return fault.New(fault.Unreachable, "attach", "the supervisor breaks the protocol: "+what)
	}
	if m.Acknowledged > 0 && a.o.Stdin != nil {
		select {
		case a.room <- m.Acknowledged:
		default:
			return broken("it acknowledges more than was sent")
		}
	}
	if len(m.Data) == 0 && !m.End && m.Pipe == 0 {
		return nil
	}
	s := a.sinks[m.Stream]
	if s == nil || s.ended {
		return broken("data of a stream that is not open")
	}
	p := part{m, nil}
	if m.Pipe != 0 {
		var came bool
		if p.pipe, came = a.pipes.Take(m.Pipe); !came {
			return broken("a pipe that was announced did not come")
		}
	}
	select {
	case s.queue <- p:
	default:
		if p.pipe != nil {
			_ = p.pipe.Close() // nothing was read from it
		}
		return broken("more data than the window allows")
	}
	if m.End {
		s.ended = true
		close(s.queue)
	}
	return nil
}

// write is a sink's own goroutine.
func (a *attachment) write(s *sink) {
	for m := range s.queue {
		select {
		case <-a.over:
			if m.pipe != nil {
				_ = m.pipe.Close() // nothing was read from it
			}
			continue
		default:
		}
		if m.Offset > s.at {
			a.missed(s, m.Offset-s.at)
			s.at = m.Offset
		}
		s.late = false
		if s.to != nil && len(m.Data) > 0 {
			if a.o.Times != nil && m.Time != s.came {
				a.o.Times(s.name, wire.Time(m.Time))
				s.came = m.Time
			}
			if _, err := s.to.Write(m.Data); err != nil {
				s.to = nil // the other stream goes on
			}
		}
		s.at += int64(len(m.Data))
		if len(m.Data) > 0 {
			a.acknowledge()
		}
		if m.pipe != nil {
			a.empty(s, m.pipe)
		}
	}
}

// pipeBuffer is how much is read from a pipe at once: what it holds.
const pipeBuffer = 256 << 10

// empty writes all that comes through a pipe. Whether that is everything is told by
// the end of the stream, which follows.
func (a *attachment) empty(s *sink, pipe *os.File) {
	defer pipe.Close() // nothing more comes, or nobody wants it
	read := make(chan struct{})
	defer close(read)
	go func() {
		select {
		case <-a.over:
			_ = pipe.SetReadDeadline(time.Unix(1, 0)) // a closed one has ended already
		case <-read:
		}
	}()
	for buf := make([]byte, pipeBuffer); ; {
		n, err := pipe.Read(buf)
		if n > 0 && s.to != nil {
			if _, err := s.to.Write(buf[:n]); err != nil {
				s.to = nil // the other stream goes on
			}
		}
		if s.at += int64(n); err != nil {
			return
		}
	}
}

func (a *attachment) missed(s *sink, n int64) {
	tell := a.o.Missed
	if s.late {
		tell = a.o.LeftOut
	}
	if tell == nil {
		return
	}
	a.missedMu.Lock()
	defer a.missedMu.Unlock()
	tell(s.name, n)
}

func (a *attachment) acknowledge() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.unacked++; a.unacked == ackEvery {
		a.unacked = 0
		_ = a.stream.Send(&supervisorv1.AttachRequest{Acknowledged: ackEvery}) // the end is told by In
	}
}

// sendStdin sends stdin within the window.
func (a *attachment) sendStdin() {
	buf := make([]byte, wire.Chunk)
	under := int32(0)
	// wait waits for an acknowledgement while more than most are under way.
	wait := func(most int32) bool {
		for under > most {
			select {
			case n := <-a.room:
				under -= n
			case <-a.over:
				return false
			}
		}
		return true
	}
	for wait(wire.Window - 1) {
		n, err := a.o.Stdin.Read(buf)
		m := &supervisorv1.AttachRequest{StdinData: buf[:n], StdinEnd: err != nil}
		if n > 0 {
			under++
		}
		if (n > 0 || err != nil) && a.stream.Send(m) != nil {
			return
		}
		if err != nil {
			break
		}
	}
	if wait(0) && a.taken != nil {
		close(a.taken)
	}
}

// fetch puts output into a response that came without.
func (c *Client) fetch(ctx context.Context, r *spec.Response) error {
	var out, errs buffer
	if n := r.Output; n != nil {
		out, errs = bufferOf(n.Stdout), bufferOf(n.Stderr)
	}
	err := c.Attach(ctx, r.ExecutionID, &api.AttachOptions{Stdout: &out, Stderr: &errs, NoFollow: true})
	if err != nil {
		return err
	}
	if n := r.Output; n != nil && (n.Stdout.BytesKept != int64(len(out)) || n.Stderr.BytesKept != int64(len(errs))) {
		return fault.New(fault.OutputCapture, "fetch output", "what is kept is not complete")
	}
	r.SetOutput(out, errs)
	return nil
}

// buffer is as much of bytes.Buffer as is needed.
type buffer []byte

// mostKept is the most that a request may have kept of a stream, in bytes.
const mostKept = 1 << 30

// bufferOf has room for what is kept of a stream, so that it is not copied as it comes.
func bufferOf(n spec.StreamCount) buffer {
	return make(buffer, 0, min(max(n.BytesKept, 0), mostKept))
}

// Write implements io.Writer.
func (b *buffer) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}
