package supervisor

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/capsule-run/capsule/runtime/wire"
	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/shim/shimapi"
	shimv1 "github.com/capsule-run/capsule/shim/shimapi/v1/plain"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// inlineMax is the largest request that travels inside a message.
const inlineMax = 2 << 20

// killPatience is how long a shim may take to report the end of an execution
// that was cancelled. After that its connection is closed, which ends it too.
const killPatience = 15 * time.Second

// sweepPatience is how long a response is held back for the removal of what
// other executions left. It goes on without us.
const sweepPatience = 2 * time.Second

// within waits for f, but not for longer than d.
func within(d time.Duration, f func() bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	late := time.NewTimer(d)
	defer late.Stop()
	select {
	case <-done:
	case <-late.C:
	}
}

// timeoutOf is the time that a request has, with its grace, in milliseconds.
func timeoutOf(r *spec.Request) int64 { return r.TimeoutMS + r.GraceMS }

// latest is how long a shim may take for an execution with that much time.
func (s *Supervisor) latest(timeoutMS int64) time.Duration {
	return time.Duration(timeoutMS)*time.Millisecond + s.overdue
}

// Execution is a started one. Its methods are safe for concurrent use.
type Execution struct {
	id         string
	dir        layout.Dir
	supervisor *Supervisor
	direct     net.Conn // to a shim that sends frames; nil: client and shim speak to it
	client     *wire.Conn
	shim       shimv1.ShimClient
	process    *process
	bundle     string // that is run in place of the request; empty: none
	created    time.Time
	latest     time.Duration // after which the shim is killed
	sweep      func() bool   // waits for the removal of what dead shims left

	done     chan struct{} // response is set
	response *spec.Response
}

// ID is the execution's UUID.
func (e *Execution) ID() string { return e.id }

// begin sends the request and follows the execution.
func (e *Execution) begin(ctx context.Context, request []byte, st Streams) {
	e.created = time.Now()
	e.sweep = func() bool { return false }
	go func() {
		defer close(e.done)
		e.response = e.follow(ctx, request, st)
	}()
}

// follow drives the shim from Create to the response.
func (e *Execution) follow(ctx context.Context, request []byte, st Streams) *spec.Response {
	overdue := time.AfterFunc(e.latest, e.process.kill)
	defer overdue.Stop()
	if e.direct != nil {
		return e.followDirect(ctx, st)
	}
	// Calls outlive a cancelled ctx: the verdict is wanted all the same.
	calls, end := context.WithCancelCause(context.Background())
	defer end(nil)
	// Before the calls end: what the shim still sends to one that has ended would
	// be complained of on stderr. It tells the shim that the result is delivered.
	defer e.client.Close()
	defer context.AfterFunc(ctx, func() { e.abandon(calls) })()
	var streams sync.WaitGroup
	if err := e.attach(calls, st, &streams); err != nil {
		return e.lost(err)
	}
	if len(request) > shimapi.RequestMax || e.bundle != "" { // else it began with the shim
		if err := e.create(calls, end, request, st); err != nil {
			return spec.Refused(e.id, err, e.created)
		}
	}
	answer, err := e.shim.Wait(calls, &shimv1.WaitRequest{})
	if err != nil {
		if cause := context.Cause(calls); cause != nil {
			err = cause
		}
		return e.lost(err)
	}
	streams.Wait()
	return e.read(answer.Response)
}

// create sends a long request. Create and Wait go out together; the verdict of a
// failed Create comes by Wait.
func (e *Execution) create(calls context.Context, end context.CancelCauseFunc, request []byte, st Streams) error {
	r := &shimv1.CreateRequest{Request: request, StreamStdin: st.Stdin != nil, Start: true, Bundle: e.bundle}
	if len(request) > inlineMax {
		if err := layout.WriteFile(e.dir.Request(), request); err != nil {
			return err
		}
		r.Request = nil
	}
	go func() {
		if _, err := e.shim.Create(calls, r); err != nil {
			end(err) // there will be nothing to wait for
		}
	}()
	return nil
}

// read decodes the response that the shim sent, or the record on disk for none.
func (e *Execution) read(data []byte) *spec.Response {
	if len(data) == 0 {
		var err error
		if data, err = os.ReadFile(e.dir.Result()); err != nil {
			return e.lost(err)
		}
	}
	r, err := spec.DecodeResponse(data)
	if err != nil {
		return spec.Refused(e.id, fault.New(fault.StateUnreadable, "decode response", err.Error()), e.created)
	}
	return r
}

// lost is the response when the shim is gone without an answer. A result that
// it recorded before it died stands.
func (e *Execution) lost(cause error) *spec.Response {
	if data, err := os.ReadFile(e.dir.Result()); err == nil {
		if r, err := spec.DecodeResponse(data); err == nil {
			return r
		}
	}
	return spec.Lost(e.id, fault.Wrap(fault.ShimLost, "wait for the execution", cause), e.created)
}

// abandon ends the execution because the caller's context is done.
func (e *Execution) abandon(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, killPatience)
	defer cancel()
	if err := e.kill(ctx, 0, true); err != nil {
		e.hangUp()
		return
	}
	select {
	case <-e.done:
	case <-ctx.Done():
		if !errors.Is(ctx.Err(), context.Canceled) {
			e.hangUp()
		}
	}
}

// hangUp ends the connection and with it the shim.
func (e *Execution) hangUp() {
	if e.direct != nil {
		_ = e.direct.Close()
		return
	}
	_ = e.client.Close()
}

func (e *Execution) kill(ctx context.Context, sig syscall.Signal, all bool) error {
	if e.direct != nil {
		return e.killDirect(sig, all)
	}
	_, err := e.shim.Kill(ctx, &shimv1.KillRequest{Signal: int32(sig), All: all})
	return err
}

// Kill sends a signal to the command, or with all ends every process of the
// sandbox. A command that does not run yet, or no more, is not an error.
func (e *Execution) Kill(sig syscall.Signal, all bool) error {
	select {
	case <-e.done:
		return nil
	default:
	}
	ctx, cancel := context.WithTimeout(context.Background(), killPatience)
	defer cancel()
	if err := e.kill(ctx, sig, all); err != nil {
		return fault.Wrap(fault.Unreachable, "signal the execution", err)
	}
	return nil
}

// Wait blocks until the execution has ended and all streams are delivered. The
// response is never nil; a lost shim yields one with reason shim_lost.
func (e *Execution) Wait() *spec.Response {
	<-e.done
	if e.response.Termination.Reason == spec.ReasonShimLost {
		// It is dead, or ends now that its connection is closed; one that does
		// neither, being stopped for instance, is not waited for for ever.
		stuck := time.AfterFunc(killPatience, e.process.kill)
		e.process.wait() // its directory lock is free now
		stuck.Stop()
		within(sweepPatience, e.supervisor.sweepDead(""))
	}
	within(sweepPatience, e.sweep)
	go e.process.wait() // whoever lives on reaps it
	return e.response
}
