package main

import (
	"bytes"
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/supervisor/api"
)

const logsAbout = `Print what is kept of an execution's output: its stdout on stdout, its stderr on
stderr. How much is kept, --max-output said when it was started. With -o json it is
one object with stdout and stderr, and with -f one object for each piece, a line each.

Usage:
  capsulectl logs [-f] [--tail N] [--stdout|--stderr] ID

Examples:
  capsulectl logs 3f2a
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
	if s.jsonOutput {
		var mu sync.Mutex
		out.w, errs.w = &pieces{s: s, mu: &mu, stream: "stdout"}, &pieces{s: s, mu: &mu, stream: "stderr"}
	}
	v.out, v.errs = &position{w: out}, &position{w: errs}
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
	// missed is how much of the positions was missed.
	missed atomic.Int64
	// gone: there was output, and none of it is kept any more.
	gone bool
}

// show prints the tail that is asked for, and what follows.
func (v *viewer) show(ctx context.Context) error {
	if v.tailGiven {
		out, errs := v.out.w, v.errs.w
		lastOut, lastErrs := &tail{lines: v.tail}, &tail{lines: v.tail}
		v.divert(lastOut, lastErrs)
		if err := v.read(ctx, false); err != nil {
			return err
		}
		v.divert(out, errs)
		for _, last := range []struct {
			t *tail
			w io.Writer
		}{{lastOut, out}, {lastErrs, errs}} {
			if last.w != nil {
				_, _ = last.w.Write(last.t.data) // a sink tells later what failed
			}
		}
		if !v.follow {
			return nil
		}
	}
	return v.read(ctx, v.follow)
}

// divert changes where the streams that are wanted go.
func (v *viewer) divert(out, errs io.Writer) {
	if v.out.w != nil {
		v.out.w = out
	}
	if v.errs.w != nil {
		v.errs.w = errs
	}
}

// read passes on what is kept after the present positions, and with follow what
// comes after it.
func (v *viewer) read(ctx context.Context, follow bool) error {
	err := v.link.persist(ctx, func(s api.Supervisor) error {
		return s.Attach(ctx, v.id, &api.AttachOptions{
			Stdout: v.out.writer(), Stderr: v.errs.writer(), StdoutOffset: v.out.n.Load(), StderrOffset: v.errs.n.Load(),
			NoFollow: !follow,
			Missed: func(stream string, n int64) {
				p := v.out
				if stream == "stderr" {
					p = v.errs
				}
				p.n.Add(n)
				v.missed.Add(n)
				_ = v.diagnose([]string{missedNote(stream, n)})
			},
		})
	})
	if err == nil && !v.gone {
		v.explain(ctx)
	}
	return err
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

// tail keeps the last lines of what is written to it; a negative number: all.
type tail struct {
	lines int
	data  []byte
}

// Write never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.data = append(t.data, p...)
	if t.lines == 0 {
		t.data = nil
	}
	if t.lines <= 0 {
		return len(p), nil
	}
	// The last line feed ends the last line; it does not begin another.
	from := max(len(t.data)-1, 0)
	for range t.lines {
		if from = bytes.LastIndexByte(t.data[:from], '\n'); from < 0 {
			return len(p), nil
		}
	}
	t.data = append(t.data[:0], t.data[from+1:]...)
	return len(p), nil
}

// pieces prints output as JSON lines.
type pieces struct {
	s      *session
	mu     *sync.Mutex
	stream string
}

// piece is one of them.
type piece struct {
	Stream string `json:"stream"`
	// Time is when it was read.
	Time     time.Time `json:"time"`
	Data     any       `json:"data"`
	Encoding string    `json:"encoding,omitempty"`
}

// Write prints one line.
func (p *pieces) Write(data []byte) (int, error) {
	if len(data) == 0 {
		return 0, nil
	}
	line := piece{Stream: p.stream, Time: time.Now().UTC(), Data: string(data)}
	if !utf8.Valid(data) {
		line.Data, line.Encoding = data, "base64"
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(data), p.s.jsonLine(line)
}
