package main

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/supervisor/api"
)

const logsAbout = `Print what is kept of an execution's output: its stdout on stdout, its stderr on
stderr. How much is kept, --max-output said when it was started. With -o json it is
one object with stdout and stderr, and with -f one object for each piece, a line each.
--since and --timestamps know when output came to a millisecond, of output that took
hours to a minute; --since begins rather too early than too late.

Usage:
  capsulectl logs [-f] [--tail N] [--since TIME] [-t] [--stdout|--stderr] ID

Examples:
  capsulectl logs 3f2a
  capsulectl logs --since 10m -t 3f2a
  capsulectl logs --since 2026-01-31T14:00:00Z 3f2a
  capsulectl logs -f --tail 20 3f2a
  capsulectl logs --stderr 3f2a 2>errors.txt
`

func logsVerb() verb {
	return verb{
		name: "logs", usage: "print the output of an execution", args: "ID", least: 1, most: 1,
		about: logsAbout, after: idNote, run: logs,
		options: []option{
			switchOption("follow", 'f', "go on until the execution has ended", func(k *call) *bool { return &k.follow }),
			{name: "tail", short: 'n', value: "N", group: groupFlags, usage: "begin with the last N lines of each stream (default: with all)",
				take: func(k *call, v string) error {
					n := 0
					err := parseAtLeast(&n, v, 0)
					k.tail, k.tailGiven = n, err == nil
					return err
				}},
			{name: "since", value: "TIME", group: groupFlags, take: takeSince,
				usage: "only what came since then: an age (10m), or a time (RFC 3339; without a zone local)"},
			switchOption("timestamps", 't', "begin each line with the time at which it came", func(k *call) *bool { return &k.timestamps }),
			switchOption("stdout", 0, "only stdout", func(k *call) *bool { return &k.stdoutOnly }),
			switchOption("stderr", 0, "only stderr", func(k *call) *bool { return &k.stderrOnly }),
		},
	}
}

func logs(ctx context.Context, s *session) (int, error) {
	id, err := s.resolve(ctx, s.args[0])
	if err != nil {
		return 0, err
	}
	s.rep.inv.id = id
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	v := &viewer{session: s, id: id}
	out, errs := &sink{w: s.stdout, cancel: cancel}, &sink{w: s.stderr, cancel: cancel}
	var mu sync.Mutex
	v.clocks = [2]*stamper{{w: out}, {w: errs}}
	if s.jsonOutput {
		v.timestamps = false // they have a place of their own
		out.w = &pieces{s: s, mu: &mu, stream: "stdout", clock: v.clocks[0]}
		errs.w = &pieces{s: s, mu: &mu, stream: "stderr", clock: v.clocks[1]}
	}
	for _, c := range v.clocks {
		c.lines = v.timestamps
	}
	v.out, v.errs = &position{w: v.clocks[0]}, &position{w: v.clocks[1]}
	if s.stdoutOnly && !s.stderrOnly {
		v.errs.w = nil
	}
	if s.stderrOnly && !s.stdoutOnly {
		v.out.w = nil
	}
	if s.jsonOutput && !s.follow {
		return v.document(ctx)
	}
	err = v.show(ctx)
	for _, k := range []*sink{out, errs} {
		if broken := k.failure(); broken != nil {
			s.rep.broken = broken
			return s.rep.brokenStream(), nil
		}
	}
	return 0, err
}

// viewer reads the output of one execution.
type viewer struct {
	*session
	id        string
	out, errs *position
	// clocks are what the positions of out and errs write to.
	clocks [2]*stamper
	// missed is how much of the positions was missed or left out.
	missed atomic.Int64
	// gone: there was output, and none of it is kept any more.
	gone bool
}

// show prints the tail that is asked for, and what follows.
func (v *viewer) show(ctx context.Context) error {
	if v.tailGiven {
		out, errs := v.clocks[0].w, v.clocks[1].w
		lastOut, lastErrs := &tail{lines: v.tail}, &tail{lines: v.tail}
		v.divert(lastOut, lastErrs)
		if err := v.read(ctx, false); err != nil {
			return err
		}
		v.divert(out, errs)
		_, _ = out.Write(lastOut.data) // a sink tells later what failed
		_, _ = errs.Write(lastErrs.data)
		if !v.follow {
			return nil
		}
	}
	return v.read(ctx, v.follow)
}

// divert changes where the streams go.
func (v *viewer) divert(out, errs io.Writer) { v.clocks[0].w, v.clocks[1].w = out, errs }

// read passes on what is kept after the present positions, and with follow what
// comes after it.
func (v *viewer) read(ctx context.Context, follow bool) error {
	err := v.link.persist(ctx, func(s api.Supervisor) error {
		o := &api.AttachOptions{
			Stdout: v.out.writer(), Stderr: v.errs.writer(), StdoutOffset: v.out.n.Load(), StderrOffset: v.errs.n.Load(),
			NoFollow: !follow, Since: v.sinceTime, LeftOut: v.skip,
			Missed: func(stream string, n int64) {
				v.skip(stream, n)
				_ = v.diagnose([]string{missedNote(stream, n)})
			},
		}
		if v.timestamps || v.jsonOutput {
			o.Times = func(stream string, came time.Time) { v.clocks[streamNumber(stream)].came = came }
		}
		return s.Attach(ctx, v.id, o)
	})
	if err == nil && !v.gone {
		v.explain(ctx)
	}
	return err
}

// streamNumber is the place of a stream among two.
func streamNumber(stream string) int {
	if stream == "stderr" {
		return 1
	}
	return 0
}

// skip moves a position over bytes that do not come.
func (v *viewer) skip(stream string, n int64) {
	[]*position{v.out, v.errs}[streamNumber(stream)].n.Add(n)
	v.missed.Add(n)
}

// explain tells when nothing came because the history has dropped the output.
func (v *viewer) explain(ctx context.Context) {
	missed := v.missed.Load()
	if missed == 0 || v.out.n.Load()+v.errs.n.Load() != missed {
		return
	}
	// Without an answer the notes of what was missed have to do.
	d, err := v.link.current().Inspect(ctx, v.id)
	if err != nil || d.Response == nil || d.Response.Output == nil || d.Response.Stdout != nil || d.Response.Stderr != nil {
		return
	}
	v.gone = true
	_ = v.diagnose([]string{"note: the output is no longer kept; capsuled --history-output-bytes keeps more"})
}

// document prints all of it as one object.
func (v *viewer) document(ctx context.Context) (int, error) {
	lines := 0
	if lines = v.tail; !v.tailGiven {
		lines = -1
	}
	out, errs := &tail{lines: lines}, &tail{lines: lines}
	v.divert(out, errs)
	if err := v.read(ctx, false); err != nil {
		return 0, err
	}
	var r spec.Response
	if !v.gone {
		r.SetOutput(out.data, errs.data)
	}
	doc := struct {
		ID             string  `json:"execution_id"`
		Stdout         *string `json:"stdout,omitempty"`
		StdoutEncoding string  `json:"stdout_encoding,omitempty"`
		Stderr         *string `json:"stderr,omitempty"`
		StderrEncoding string  `json:"stderr_encoding,omitempty"`
	}{v.id, r.Stdout, r.StdoutEncoding, r.Stderr, r.StderrEncoding}
	if v.out.w == nil {
		doc.Stdout, doc.StdoutEncoding = nil, ""
	}
	if v.errs.w == nil {
		doc.Stderr, doc.StderrEncoding = nil, ""
	}
	return v.session.document(doc, 0)
}
