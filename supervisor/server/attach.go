package server

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/containerd/ttrpc"

	"github.com/capsule-run/capsule/shim/shimapi/handover"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	supervisorv1 "github.com/capsule-run/capsule/supervisor/api/v1"
	"github.com/capsule-run/capsule/supervisor/api/wire"
)

// maxStdin is how much stdin a message may carry.
const maxStdin = 128 << 10

// closeGrace is how long a stream whose end was told waits for the caller's
// last acknowledgements, about which ttrpc would complain afterwards.
const closeGrace = 5 * time.Second

// attachment serves one Attach or Logs.
type attachment struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	stream ttrpc.StreamServer
	pipes  *handover.Sender
	// mayTakePipes: of our user or root. Whoever reads from a pipe into memory that he
	// serves himself (FUSE) holds the kernel's lock of the pipe for as long as he likes,
	// and whoever writes into it or closes it waits, not to be killed. Those who could
	// stop the shim as well may have one.
	mayTakePipes bool

	credit credit
	stdin  *stdin        // nil: the caller has none
	closed chan struct{} // closed when the caller sends nothing more
}

// errCallerLeft ends an attachment without being an error.
var errCallerLeft = errors.New("the caller closed the stream")

func (c *connection) attach(ctx context.Context, s ttrpc.StreamServer, logs bool) error {
	var r supervisorv1.AttachRequest
	if err := s.RecvMsg(&r); err != nil {
		return fault.Wrap(fault.InvalidValue, "decode the request", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	a := &attachment{ctx: ctx, cancel: cancel, stream: s, pipes: c.pipes, mayTakePipes: c.account.own, credit: newCredit(), closed: make(chan struct{})}
	o := &api.AttachOptions{
		StdoutOffset: r.StdoutOffset, StderrOffset: r.StderrOffset, NoFollow: logs, Hold: r.Hold && !logs,
		Since: wire.Time(r.Since),
	}
	if r.Stdin && !logs {
		a.stdin = newStdin(ctx, c.account, a.tookStdin)
		o.Stdin = a.stdin
		defer a.stdin.abandon()
		if err := a.stdin.put(&r); err != nil {
			return err
		}
	}
	writers, err := a.writers(&r, o)
	if err != nil {
		return err
	}
	go a.receive()
	err = c.supervisor().Attach(ctx, r.ExecutionId, o)
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errCallerLeft):
		return nil
	case cause != nil:
		return cause
	case err != nil:
		return err
	}
	return a.finish(writers, logs)
}

// writers puts a writer into o for each stream that the caller wants.
func (a *attachment) writers(r *supervisorv1.AttachRequest, o *api.AttachOptions) ([]*writer, error) {
	if r.StdoutOffset < 0 || r.StderrOffset < 0 {
		return nil, fault.New(fault.OutOfRange, "attach", "an offset is negative")
	}
	both := len(r.Streams) == 0
	out, errs := both, both
	for _, id := range r.Streams {
		switch id {
		case supervisorv1.Stream_STREAM_STDOUT:
			out = true
		case supervisorv1.Stream_STREAM_STDERR:
			errs = true
		case supervisorv1.Stream_STREAM_UNSPECIFIED: // none, which is not the same as an empty list
		default:
			return nil, fault.New(fault.InvalidValue, "attach", "unknown stream").WithField("/streams")
		}
	}
	pipes := r.Pipe && a.mayTakePipes
	var all []*writer
	if out {
		w := &writer{a: a, id: supervisorv1.Stream_STREAM_STDOUT, offset: r.StdoutOffset}
		o.Stdout = w.taker(pipes)
		all = append(all, w)
	}
	if errs {
		w := &writer{a: a, id: supervisorv1.Stream_STREAM_STDERR, offset: r.StderrOffset}
		o.Stderr = w.taker(pipes)
		all = append(all, w)
	}
	o.Missed = func(stream string, bytes int64) {
		for _, w := range all {
			if w.name() == stream {
				w.skip(bytes)
			}
		}
	}
	o.LeftOut = o.Missed
	if r.Times {
		o.Times = func(stream string, came time.Time) {
			for _, w := range all {
				if w.name() == stream {
					w.stamp(came)
				}
			}
		}
	}
	return all, nil
}

// receive takes what the caller sends until it sends no more.
func (a *attachment) receive() {
	defer close(a.closed)
	for {
		var r supervisorv1.AttachRequest
		if err := a.stream.RecvMsg(&r); err != nil {
			if errors.Is(err, io.EOF) {
				err = errCallerLeft
			}
			a.cancel(err)
			return
		}
		if err := a.credit.grant(r.Acknowledged); err != nil {
			a.cancel(err)
			return
		}
		if err := a.stdin.put(&r); err != nil {
			a.cancel(err)
			return
		}
	}
}

// tookStdin tells the caller that n of its messages were taken.
func (a *attachment) tookStdin(n int32) {
	// An error means that the connection is lost, which ends ctx too.
	_ = a.stream.SendMsg(&supervisorv1.AttachResponse{Acknowledged: n})
}

// finish tells the caller that nothing follows, and waits until it knows.
func (a *attachment) finish(writers []*writer, logs bool) error {
	for _, w := range writers {
		if err := a.stream.SendMsg(&supervisorv1.AttachResponse{Stream: w.id, Offset: w.at(), End: true}); err != nil {
			return err
		}
	}
	if !logs {
		if err := a.stream.SendMsg(&supervisorv1.AttachResponse{Exited: true}); err != nil {
			return err
		}
	}
	late := time.NewTimer(closeGrace)
	defer late.Stop()
	select {
	case <-a.closed:
	case <-late.C:
	}
	return nil
}

// writer sends one output stream.
type writer struct {
	a  *attachment
	id supervisorv1.Stream

	mu     sync.Mutex
	offset int64
	came   int64 // when what is written came, nanoseconds since the epoch
}

func (w *writer) name() string {
	if w.id == supervisorv1.Stream_STREAM_STDOUT {
		return "stdout"
	}
	return "stderr"
}

// skip notes that bytes are missing here.
func (w *writer) skip(n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.offset += n
}

// stamp notes when what is written next came.
func (w *writer) stamp(came time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.came = wire.Nanos(came)
}

// message is part of the stream as it is sent.
func (w *writer) message(part []byte) *supervisorv1.AttachResponse {
	w.mu.Lock()
	defer w.mu.Unlock()
	return &supervisorv1.AttachResponse{Stream: w.id, Offset: w.offset, Data: part, Time: w.came}
}

func (w *writer) at() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.offset
}

// taker is the writer as a caller wants it that can, or cannot, take pipes.
func (w *writer) taker(pipes bool) io.Writer {
	if pipes {
		return pipeWriter{w}
	}
	return w
}

// pipeWriter is a writer that hands pipes on.
type pipeWriter struct{ *writer }

var _ api.PipeTaker = pipeWriter{}

// TakePipe implements api.PipeTaker.
func (w pipeWriter) TakePipe(r *os.File) error {
	inode, err := w.a.pipes.Add(r)
	if err != nil {
		return err
	}
	m := w.message(nil)
	m.Pipe = inode
	return w.a.stream.SendMsg(m)
}

// Piped implements api.PipeTaker.
func (w pipeWriter) Piped(bytes int64) { w.skip(bytes) }

// Write implements io.Writer. It blocks while the caller has a window's worth
// of messages that it has not acknowledged.
func (w *writer) Write(p []byte) (int, error) {
	for sent := 0; sent < len(p); {
		if err := w.a.credit.take(w.a.ctx); err != nil {
			return sent, err
		}
		part := p[sent:min(len(p), sent+wire.Chunk)]
		if err := w.a.stream.SendMsg(w.message(part)); err != nil {
			return sent, err
		}
		sent += len(part)
		w.skip(int64(len(part)))
	}
	return len(p), nil
}
