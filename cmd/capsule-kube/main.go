// Capsule-kube runs ExecutionRequests as Jobs of a Kubernetes cluster whose nodes have
// capsule as a runtime. `capsulectl kube` executes it: what talks to an API server is too
// large for a program that starts in milliseconds.
//
//	capsule-kube run [flags] < request.json
//	capsule-kube version
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// version and commit are set by the linker.
var version, commit = "unknown", ""

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// run gives the exit status. Every outcome of `run` is one document on out.
func run(args []string, in, out, diagnostics *os.File) int {
	say := func(text string) { _, _ = diagnostics.WriteString("capsule-kube: " + text + "\n") } // nobody else is left to tell
	if len(args) > 0 && args[0] == "version" {
		_, _ = out.WriteString("capsule-kube " + version + " " + commit + "\n") // see above
		return 0
	}
	created := time.Now()
	id := newID()
	o, err := parse(args)
	if o != nil && o.help {
		say("see capsulectl kube run --help")
		return 0
	}
	var response *spec.Response
	var caller syscall.Signal
	if err == nil {
		response, caller, err = o.execute(id, created, in, out, say)
	}
	if err != nil {
		response = spec.Refused(id, err, created)
		if code := fault.From(err, fault.IO).Code; code[:2] != "E1" && code[:2] != "E4" && code[:2] != "E5" {
			response.Termination.Reason = spec.ReasonSetupFailed
		}
	}
	if response == nil {
		return 0 // a dry run
	}
	if _, err := out.Write(response.Encode(o.pretty)); err != nil {
		say(err.Error())
		return spec.ExitRefused
	}
	return spec.ExitStatus(response, caller)
}

// execute makes the job, follows it and takes it away.
func (o *options) execute(id string, created time.Time, in, out *os.File, say func(string)) (*spec.Response, syscall.Signal, error) {
	request, err := o.request(in)
	if err != nil {
		return nil, 0, err
	}
	job, err := o.job(id, request)
	if err != nil {
		return nil, 0, err
	}
	if o.dryRun {
		return nil, 0, printJob(out, job)
	}
	c, err := o.connect()
	if err != nil {
		return nil, 0, err
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	go func() {
		for s := range signals {
			if ctx.Err() != nil {
				os.Exit(spec.ExitSignalBase + int(s.(syscall.Signal))) // asked twice
			}
			cancel(interrupted(s.(syscall.Signal)))
		}
	}()
	f := &follower{cluster: c, id: id, created: created, patience: o.patience, total: total(request), say: func(string) {}}
	if o.verbose {
		f.say = say
	}
	response, err := f.run(ctx, job)
	if !o.keep {
		if bad := c.remove(f.name); bad != nil {
			say(bad.Error())
		}
	}
	if s, ok := context.Cause(ctx).(interrupted); ok && err != nil {
		response, err = spec.Refused(id, fault.New(fault.Cancelled, "", "ended by "+syscall.Signal(s).String()+"; the job was taken away"), created), nil
		response.Status, response.Termination.Reason = spec.StatusKilled, spec.ReasonKilledByCaller
		return response, syscall.Signal(s), nil
	}
	return response, 0, err
}

// interrupted is the signal that ended the wait.
type interrupted syscall.Signal

func (i interrupted) Error() string { return syscall.Signal(i).String() }
