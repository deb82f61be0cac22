package main

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/supervisor"
	"github.com/capsule-run/capsule/supervisor/api"
)

const attachAbout = `Connect to an execution as if it had been started here: what is kept of its output
comes first, then what it writes; standard input is passed on when it was started
with -i. Signals go to the command: Ctrl-C interrupts it, a second one within 5 s
kills it. To look without touching, use logs -f. The exit status is that of run.

Usage:
  capsulectl attach [--no-stdin] ID

Examples:
  id=$(capsulectl run -d -i -- sort -n)
  capsulectl attach $id < numbers.txt
`

func attachVerb() verb {
	return verb{
		name: "attach", usage: "connect to a running execution", args: "ID", least: 1, most: 1,
		about: attachAbout, after: idNote, run: attach,
		options: []option{switchOption("no-stdin", 0, "do not pass standard input on", func(k *call) *bool { return &k.noStdin })},
	}
}

// attached is an execution that signals are passed on to.
type attached struct {
	link *link
	id   string
}

// Kill implements execution.
func (a attached) Kill(sig syscall.Signal, all bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), killPatience)
	defer cancel()
	_, err := a.link.current().Kill(ctx, a.id, sig, all)
	return err
}

// Wait is not asked for.
func (a attached) Wait() *spec.Response { return nil }

func attach(ctx context.Context, s *session) (int, error) {
	id, err := s.resolve(ctx, s.args[0])
	if err != nil {
		return 0, err
	}
	s.rep.inv.id = id
	d, err := s.link.current().Inspect(ctx, id)
	if err != nil {
		return 0, err
	}
	x := attached{s.link, id}
	signals := &relay{now: time.Now, later: time.AfterFunc, ready: make(chan struct{}), abandon: func(sig syscall.Signal) { s.exit(s.rep.abandon(sig)) }}
	// The second signal kills all; it does not end the waiting.
	signals.cancel = func() { go func() { _ = x.Kill(syscall.SIGKILL, true) }() }
	signals.started(x)
	go s.catch(signals)
	<-signals.ready

	out, errs := &sink{w: s.stdout, cancel: func() {}}, &sink{w: s.stderr, cancel: func() {}}
	// A reader that goes away detaches; the execution is not capsulectl's own.
	streaming, stop := context.WithCancel(ctx)
	defer stop()
	out.cancel, errs.cancel = stop, stop
	st := supervisor.Streams{Stdout: out, Stderr: errs}
	if s.jsonOutput {
		st.Stdout, st.Stderr = nil, nil
	}
	if !s.noStdin && d.Live() {
		st.Stdin = s.stdin
	}
	note := func(line string) { _ = s.diagnose([]string{line}) }
	if st.Stdin != nil || st.Stdout != nil {
		if err := (&streamer{link: s.link, note: note, gaps: true}).attach(streaming, id, st); err != nil && streaming.Err() == nil {
			return 0, err
		}
	}
	if s.rep.broken = errors.Join(out.failure(), errs.failure()); s.rep.broken != nil {
		return s.rep.brokenStream(), nil
	}
	response, err := s.wait(ctx, id)
	if err != nil {
		return 0, err
	}
	s.rep.request, s.rep.caller = d.Request, signals.received()
	return s.rep.respond(response), nil
}

// wait waits for the response, also when the daemon restarts.
func (s *session) wait(ctx context.Context, id string) (r *spec.Response, err error) {
	err = s.link.persist(ctx, func(to api.Supervisor) (err error) {
		r, err = to.Wait(ctx, id)
		return err
	})
	return r, err
}
