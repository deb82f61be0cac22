package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor"
	"github.com/capsule-run/capsule/supervisor/api"
)

// starter runs executions in the foreground.
type starter interface {
	Start(ctx context.Context, o *order, st supervisor.Streams) (execution, error)
}

// engine is what the run verb needs of the supervisor in this process.
type engine interface {
	starter
	Explain(ctx context.Context, req *spec.Request) (string, error)
	ExplainBundle(ctx context.Context, dir string) (string, error)
}

// order is what the caller wants to be run.
type order struct {
	// request is complete and valid.
	request *spec.Request
	// document is the request as it came on stdin, over which profile still has
	// to be put; nil when flags made the request.
	document []byte
	profile  string
	// id is empty when any will do.
	id string
}

// start is the order for a supervisor that decodes requests itself.
func (o *order) start() *api.StartRequest {
	if o.document != nil {
		return &api.StartRequest{Request: o.document, Profile: o.profile, ID: o.id}
	}
	return &api.StartRequest{Request: o.request.Encode(), ID: o.id}
}

// execution is a started one.
type execution interface {
	Kill(sig syscall.Signal, all bool) error
	Wait() *spec.Response
}

// embedded is the supervisor in this process.
type embedded struct{ *supervisor.Supervisor }

func (e embedded) Start(ctx context.Context, o *order, st supervisor.Streams) (execution, error) {
	x, err := e.Supervisor.Start(ctx, o.request, o.id, st)
	if err != nil {
		return nil, err
	}
	return x, nil
}

// run is the run verb. args follow the word run. It returns the exit status.
func (c *console) run(args []string) (code int) {
	inv, err := parse(args)
	if faults, ok := err.(fault.List); ok {
		inv.jsonOutput = inv.jsonOutput || wantsJSON(args)
		if problem := c.configure(inv); problem != nil {
			faults = append(faults, fault.From(problem, fault.ConfigFile))
			err = faults
		} else if !inv.documented() {
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
	case inv.create != "":
		if err := writeDefault(inv.create); err != nil {
			return rep.refuse(err)
		}
		return 0
	}
	return c.execute(inv, rep)
}

// execute starts the execution, relays signals and streams, and reports.
func (c *console) execute(inv *invocation, rep *reporter) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	signals := &relay{cancel: cancel, now: time.Now, later: time.AfterFunc, ready: make(chan struct{}), abandon: func(s syscall.Signal) { c.exit(rep.abandon(s)) }}
	// os/signal costs several switches between threads for each signal, which
	// need not wait for one another nor the request for them.
	go c.catch(signals)
	err := c.configure(inv)
	var o *order
	if err == nil {
		o, err = c.order(inv)
	}
	if err != nil {
		return rep.refuse(err)
	}
	rep.request = o.request
	if inv.detach {
		return c.detach(ctx, inv, o, rep)
	}
	if inv.dryRun {
		eng, err := c.open(inv.rules)
		if err != nil {
			return rep.refuse(err)
		}
		signals.begin()
		return rep.plan(eng.Explain(ctx, o.request))
	}
	eng, err := c.starter(ctx, inv)
	if err != nil {
		return rep.refuse(err)
	}
	signals.begin()
	<-signals.ready // the payload must not run before
	streams, out, errs := c.streams(inv, cancel)
	x, err := eng.Start(ctx, o, streams)
	if err != nil {
		rep.caller = signals.received()
		if o.id != "" {
			inv.id = o.id // by which the daemon knows what it refused
		}
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

// starter is what runs the execution: the daemon when there is one, else this process.
func (c *console) starter(ctx context.Context, inv *invocation) (starter, error) {
	if inv.bundle != "" {
		return c.bundleStarter(inv)
	}
	if !inv.embedded {
		l, err := c.daemon(ctx, inv.address)
		if err != nil {
			return nil, err
		}
		if l != nil {
			return &remote{link: l, note: func(s string) { _ = c.diagnose([]string{s}) }}, nil
		}
	}
	return c.open(inv.rules)
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
