package main

import (
	"context"
	"io"
	"sync/atomic"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/supervisor"
	"github.com/capsule-run/capsule/supervisor/api"
)

// streamer attaches to an execution, and again where it was when the connection
// is lost.
type streamer struct {
	link *link
	note func(string)
	// gaps: bytes that are missing are noted where they are missing.
	gaps bool
}

// position is a place in a stream of output.
type position struct {
	w io.Writer
	n atomic.Int64
}

// Write passes p on.
func (p *position) Write(data []byte) (int, error) {
	p.n.Add(int64(len(data)))
	return p.w.Write(data)
}

// writer is nil when nobody wants the stream.
func (p *position) writer() io.Writer {
	if p.w == nil {
		return nil
	}
	return p
}

// attach passes everything on, from the beginning of what is kept, and returns
// when the output has ended.
func (s *streamer) attach(ctx context.Context, id string, st supervisor.Streams) error {
	out, errs := &position{w: st.Stdout}, &position{w: st.Stderr}
	var in *pump
	if st.Stdin != nil {
		in = newPump(st.Stdin)
	}
	again := false
	return s.link.persist(ctx, func(to api.Supervisor) error {
		o := &api.AttachOptions{
			Stdout: out.writer(), Stderr: errs.writer(), StdoutOffset: out.n.Load(), StderrOffset: errs.n.Load(), Hold: true,
			Missed: func(stream string, n int64) {
				if stream == "stdout" {
					out.n.Add(n)
				} else {
					errs.n.Add(n)
				}
				if s.gaps {
					s.note(missedNote(stream, n))
				}
			},
		}
		if in != nil {
			if again && in.inFlight() {
				s.note("warning: the connection to capsuled was lost and is back; input that was on its way may be missing")
			}
			source := in.source()
			defer source.stop()
			o.Stdin = source
		}
		again = true
		return to.Attach(ctx, id, o)
	})
}

func missedNote(stream string, n int64) string {
	return "note: " + spec.FormatBytes(n) + " of " + stream + " were not kept and are missing here"
}
