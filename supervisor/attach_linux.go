package supervisor

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/capsule-run/capsule/shim/shimapi"
	shimv1 "github.com/capsule-run/capsule/shim/shimapi/v1"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
)

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
}

// Attach implements api.Supervisor.
func (c *caller) Attach(ctx context.Context, id string, o *api.AttachOptions) error {
	a := &attachment{o: o, streams: map[shimv1.Stream]*receiver{}}
	if o.Stdout != nil {
		a.streams[shimv1.Stream_STREAM_STDOUT] = &receiver{name: "stdout", to: o.Stdout, at: o.StdoutOffset}
	}
	if o.Stderr != nil {
		a.streams[shimv1.Stream_STREAM_STDERR] = &receiver{name: "stderr", to: o.Stderr, at: o.StderrOffset}
	}
	for pause := shortPause; ; pause = min(2*pause, longPause) {
		e, err := c.find(id)
		if err != nil {
			return err
		}
		if !e.summary.Live() {
			return a.replay(c.s, e)
		}
		if e.summary.Status != api.StatusQueued {
			err := c.s.connected(ctx, e, func(shim shimv1.ShimClient) error { return a.follow(ctx, shim) })
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

// follow takes the output from a living shim.
func (a *attachment) follow(ctx context.Context, shim shimv1.ShimClient) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if a.o.Stdin != nil {
		in, err := shim.WriteStdin(ctx)
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
	req := &shimv1.AttachRequest{Hold: a.o.Hold, NoFollow: a.o.NoFollow}
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
	out, err := shim.Attach(ctx)
	if err == nil {
		err = out.Send(req)
	}
	if err != nil {
		return err
	}
	return a.receive(out, open)
}

func (a *attachment) receive(out shimv1.Shim_AttachClient, open int) error {
	for taken := int32(0); open > 0; {
		m, err := out.Recv()
		if err != nil {
			return err
		}
		r := a.streams[m.Stream]
		if r == nil {
			continue
		}
		if a.take(r, m.Offset, m.Data); len(m.Data) == 0 {
			r.ended = true
			open--
			continue
		}
		if taken++; taken == shimapi.Window/2 {
			if err := out.Send(&shimv1.AttachRequest{Acknowledged: taken}); err != nil {
				return err
			}
			taken = 0
		}
	}
	_ = out.CloseSend() // all has come
	return nil
}

// take passes bytes on, or only counts them when the writer has failed.
func (a *attachment) take(r *receiver, offset int64, data []byte) {
	if offset > r.at {
		if a.o.Missed != nil {
			a.o.Missed(r.name, offset-r.at)
		}
		r.at = offset
	}
	if r.to != nil && len(data) > 0 {
		if _, err := r.to.Write(data); err != nil {
			r.to = nil
		}
	}
	r.at += int64(len(data))
}

// replay takes what is left of the output from the record of an ended execution.
func (a *attachment) replay(s *Supervisor, e *entry) error {
	response, err := s.response(e)
	if err != nil {
		return err
	}
	if response.Output == nil {
		return nil
	}
	stdout, err1 := response.StdoutBytes()
	stderr, err2 := response.StderrBytes()
	tail := s.keepsTail(e)
	if r := a.streams[shimv1.Stream_STREAM_STDOUT]; r != nil && err1 == nil {
		a.rest(r, stdout, response.Output.Stdout.BytesTotal, tail)
	}
	if r := a.streams[shimv1.Stream_STREAM_STDERR]; r != nil && err2 == nil {
		a.rest(r, stderr, response.Output.Stderr.BytesTotal, tail)
	}
	return errors.Join(err1, err2)
}

// keepsTail tells whether the kept bytes are the last ones.
func (s *Supervisor) keepsTail(e *entry) bool {
	req, err := s.request(e)
	return err == nil && req != nil && req.Resources.OutputPolicy == "tail"
}

func (a *attachment) rest(r *receiver, kept []byte, total int64, tail bool) {
	if r.ended {
		return
	}
	first := int64(0)
	if tail {
		first = total - int64(len(kept))
	}
	if r.at > first {
		kept = kept[min(r.at-first, int64(len(kept))):]
		first = r.at
	}
	a.take(r, first, kept)
	if r.at < total {
		a.take(r, total, nil)
	}
	r.ended = true
}
