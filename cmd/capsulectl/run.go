package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/containerd/log"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor"
)

// engine is what capsulectl needs of a supervisor.
type engine interface {
	Start(ctx context.Context, req *spec.Request, id string, st supervisor.Streams) (execution, error)
	Explain(ctx context.Context, req *spec.Request) (string, error)
	ExplainBundle(ctx context.Context, dir string) (string, error)
}

// execution is a started one.
type execution interface {
	Kill(sig syscall.Signal, all bool) error
	Wait() *spec.Response
}

// embedded is the supervisor in this process.
type embedded struct{ *supervisor.Supervisor }

func (e embedded) Start(ctx context.Context, req *spec.Request, id string, st supervisor.Streams) (execution, error) {
	x, err := e.Supervisor.Start(ctx, req, id, st)
	if err != nil {
		return nil, err
	}
	return x, nil
}

func openEmbedded() (engine, error) {
	// ttrpc logs what it drops, such as the last acknowledgement of a stream
	// that has ended; what matters reaches the caller as a fault.
	log.L.Logger.SetOutput(io.Discard)
	s, err := supervisor.New(supervisor.Options{})
	if err != nil {
		return nil, err
	}
	return embedded{s}, nil
}

// console is the world around capsulectl.
type console struct {
	stdin     io.Reader
	stdout    io.Writer
	stderr    io.Writer
	lookupEnv func(string) (string, bool)
	open      func() (engine, error)
	// catch delivers the signals of this process to the relay.
	catch func(*relay)
	exit  func(int)
}

// run is the run verb. args follow the word run. It returns the exit status.
func (c *console) run(args []string) (code int) {
	inv, err := parse(args)
	if faults, ok := err.(fault.List); ok {
		inv.jsonOutput = inv.jsonOutput || wantsJSON(args)
		if !inv.jsonInput {
			_, more := assemble(inv, c.lookupEnv)
			err = append(faults, more...)
		}
	}
	rep := &reporter{console: c, inv: inv, created: time.Now()}
	defer func() {
		if p := recover(); p != nil {
			code = rep.crashed(p)
		}
	}()
	switch {
	case err != nil:
		return rep.refuse(err)
	case inv.help:
		return c.help("run")
	}
	return c.execute(inv, rep)
}

// execute starts the execution, relays signals and streams, and reports.
func (c *console) execute(inv *invocation, rep *reporter) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	signals := &relay{cancel: cancel, now: time.Now, abandon: func(s syscall.Signal) { c.exit(rep.abandon(s)) }}
	// os/signal costs several switches between threads for each signal, which
	// need not wait for one another nor the request for them.
	go c.catch(signals)
	req, err := c.request(inv)
	if err != nil {
		return rep.refuse(err)
	}
	rep.request = req
	eng, err := c.open()
	if err != nil {
		return rep.refuse(err)
	}
	signals.begin()
	if inv.dryRun {
		return rep.plan(eng.Explain(ctx, req))
	}
	streams, out, errs := c.streams(inv, cancel)
	x, err := eng.Start(ctx, req, inv.id, streams)
	if err != nil {
		rep.caller = signals.received()
		return rep.refuse(err)
	}
	signals.started(x)
	response := x.Wait()
	rep.caller = signals.received()
	rep.broken = errors.Join(out.failure(), errs.failure())
	if rep.broken == nil {
		rep.broken = undelivered(response, out, errs)
	}
	return rep.respond(response)
}

// request makes the request: of stdin with --json, else of the flags.
func (c *console) request(inv *invocation) (*spec.Request, error) {
	if !inv.jsonInput {
		return build(inv, c.lookupEnv)
	}
	if f, ok := c.stdin.(*os.File); ok && isTerminal(f) {
		io.WriteString(c.stderr, "capsule: reading an ExecutionRequest from the terminal; end it with Ctrl-D\n") // only a courtesy
	}
	data, err := readRequest(c.stdin, spec.MaxDocumentBytes)
	if err != nil {
		return nil, err
	}
	return decode(data, inv.profile)
}

// streams are the live ends in human mode; with a response on stdout the output
// of the payload is only in the response.
func (c *console) streams(inv *invocation, cancel func()) (st supervisor.Streams, out, errs *sink) {
	if inv.stdin {
		st.Stdin = c.stdin
	}
	if !inv.jsonOutput {
		out, errs = &sink{w: c.stdout, cancel: cancel}, &sink{w: c.stderr, cancel: cancel}
		st.Stdout, st.Stderr = out, errs
	}
	return st, out, errs
}

// undelivered is an E6001 when the live streams lack bytes that the shim counted.
// Output that ends early must not look like the whole of it.
func undelivered(r *spec.Response, out, errs *sink) error {
	if r.Output == nil {
		return nil
	}
	stdout, stderr := out.missing(r.Output.Stdout.BytesTotal), errs.missing(r.Output.Stderr.BytesTotal)
	if stdout <= 0 && stderr <= 0 {
		return nil
	}
	return fault.New(fault.IO, "pass the output on", fmt.Sprintf("%d bytes of stdout and %d of stderr were not delivered", max(stdout, 0), max(stderr, 0))).
		WithHint("The command has ended, " + ending(r) + "; --output json shows the output that was kept.")
}
