package supervisor

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/shim/shimapi/handover"
	shimv1 "github.com/capsule-run/capsule/shim/shimapi/v1/plain"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
)

// attachWindow is how many messages of output, 64 KiB each, a shim has under way
// to a caller: that much is in memory for one that does not read.
const attachWindow = 8

// attachment passes output on to one caller.
type attachment struct {
	o       *api.AttachOptions
	streams map[shimv1.Stream]*receiver
	stdin   sync.Once
}

// receiver is one stream on its way to a writer.
type receiver struct {
	name  string
	to    io.Writer // nil after a failure
	at    int64     // offset of the next byte
	ended bool
	// late: what is before the first byte is left out, and not missed.
	late bool
	came int64 // when the byte at at came, nanoseconds since the epoch; 0: not known
	// piped: the bytes from at on go through a pipe that the writer has taken.
	piped bool
}

// Attach implements api.Supervisor.
func (c *caller) Attach(ctx context.Context, id string, o *api.AttachOptions) error {
	a := &attachment{o: o, streams: map[shimv1.Stream]*receiver{}}
	if o.Stdout != nil {
		a.streams[shimv1.Stream_STREAM_STDOUT] = &receiver{name: "stdout", to: o.Stdout, at: o.StdoutOffset, late: !o.Since.IsZero()}
	}
	if o.Stderr != nil {
		a.streams[shimv1.Stream_STREAM_STDERR] = &receiver{name: "stderr", to: o.Stderr, at: o.StderrOffset, late: !o.Since.IsZero()}
	}
	for pause := shortPause; ; pause = min(2*pause, longPause) {
		e, err := c.find(id)
		if err != nil {
			return err
		}
		if !e.summary.Live() {
			err := a.replay(c.s, e)
			if !errors.Is(err, errMoved) {
				return err
			}
			continue // it is in the history now
		}
		if a.cut() {
			return fault.New(fault.Unreachable, "attach", "the connection to the shim was lost while output came through a pipe").
				WithHint("Attach again, at the offsets behind what has come.")
		}
		if e.summary.Status != api.StatusQueued {
			err := c.s.onConnection(ctx, e, func(to *connection) error { return a.follow(ctx, to) })
			if err == nil {
				return nil
			}
			if ctx.Err() != nil {
				return fault.Wrap(fault.Cancelled, "attach", ctx.Err())
			}
		} else if o.NoFollow {
			return nil
		}
		if err := c.again(ctx, id, pause); err != nil {
			return err
		}
	}
}

// cut tells whether a pipe has ended before its stream: only who read it knows
// where that was.
func (a *attachment) cut() bool {
	for _, r := range a.streams {
		if r.piped && !r.ended {
			return true
		}
	}
	return false
}

// follow takes the output from a living shim.
func (a *attachment) follow(ctx context.Context, to *connection) error {
	shim := to.shim
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if a.o.Stdin != nil {
		in, err := shim.WriteStdin(ctx, nil, 2*shimapi.Window)
		if err != nil {
			return err
		}
		// A second shim does not get what the first has taken; there is none.
		a.stdin.Do(func() { go sendStdin(in, a.o.Stdin) })
	}
	if len(a.streams) == 0 {
		_, err := shim.Wait(ctx, &shimv1.WaitRequest{})
		return err
	}
	req := &shimv1.AttachRequest{Window: attachWindow, Hold: a.o.Hold, NoFollow: a.o.NoFollow, Times: a.o.Times != nil, Pipe: a.takesPipes()}
	if !a.o.Since.IsZero() {
		req.Since = a.o.Since.UnixNano()
	}
	open := 0
	for id, r := range a.streams {
		if r.ended {
			continue
		}
		open++
		req.Streams = append(req.Streams, id)
		if id == shimv1.Stream_STREAM_STDOUT {
			req.StdoutOffset = r.at
		} else {
			req.StderrOffset = r.at
		}
	}
	if open == 0 {
		return nil
	}
	out, err := shim.Attach(ctx, nil, 2*shimapi.Window)
	if err != nil {
		return err
	}
	// All has come, or the caller has left: nobody tells the shim of a ctx that is
	// done, and it would hold the command up for a caller that is gone.
	defer out.CloseSend()
	if err := out.Send(req); err != nil {
		return err
	}
	return a.receive(out, to.pipes, open)
}

// takesPipes tells whether the caller can do with pipes.
func (a *attachment) takesPipes() bool {
	for _, r := range a.streams {
		if _, ok := r.to.(api.PipeTaker); !ok {
			return false
		}
	}
	return a.o.Hold && !a.o.NoFollow && a.o.Times == nil
}

func (a *attachment) receive(out shimv1.ShimAttach, pipes *handover.Receiver, open int) error {
	for taken := int32(0); open > 0; {
		m, err := out.Recv()
		if err != nil {
			return err
		}
		r := a.streams[m.Stream]
		if r == nil {
			continue
		}
		if m.Pipe != 0 {
			if err := a.takePipe(r, m, pipes); err != nil {
				return err
			}
			continue
		}
		if a.take(r, m.Offset, m.Time, m.Data); len(m.Data) == 0 {
			r.ended = true
			open--
			continue
		}
		if taken++; taken == attachWindow/2 {
			if err := out.Send(&shimv1.AttachRequest{Acknowledged: taken}); err != nil {
				return err
			}
			taken = 0
		}
	}
	return nil
}

// takePipe gives the caller the pipe through which the rest of a stream comes.
func (a *attachment) takePipe(r *receiver, m *shimv1.AttachResponse, pipes *handover.Receiver) error {
	pipe, ok := pipes.Take(m.Pipe)
	if !ok {
		return fault.New(fault.ShimLost, "attach", "the pipe of "+r.name+" did not come")
	}
	a.take(r, m.Offset, 0, nil)
	taker, ok := r.to.(api.PipeTaker)
	if !ok { // it has failed meanwhile
		return pipe.Close()
	}
	r.piped = true
	if err := taker.TakePipe(pipe); err != nil {
		r.to = nil
	}
	return nil
}

// take passes bytes on, or only counts them when the writer has failed.
func (a *attachment) take(r *receiver, offset, came int64, data []byte) {
	if gap := offset - r.at; gap > 0 {
		switch {
		case r.piped:
			if taker, ok := r.to.(api.PipeTaker); ok {
				taker.Piped(gap)
			}
		case r.late && a.o.LeftOut != nil:
			a.o.LeftOut(r.name, gap)
		case !r.late && a.o.Missed != nil:
			a.o.Missed(r.name, gap)
		}
		r.at = offset
	}
	r.late = false
	if r.to != nil && len(data) > 0 {
		if a.o.Times != nil && came != r.came {
			a.o.Times(r.name, moment(came))
			r.came = came
		}
		if _, err := r.to.Write(data); err != nil {
			r.to = nil
		}
	}
	r.at += int64(len(data))
}

// moment is the time of nanoseconds since the epoch; 0: not known.
func moment(nanos int64) time.Time {
	if nanos == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanos).UTC()
}
