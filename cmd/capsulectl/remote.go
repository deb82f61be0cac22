package main

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor"
	"github.com/capsule-run/capsule/supervisor/api"
)

// remote runs executions in the foreground through a daemon. They belong to
// capsulectl: when it dies, they are killed.
type remote struct {
	*link
	// note tells the caller something on stderr.
	note func(string)
}

// Start implements engine.
func (r *remote) Start(ctx context.Context, o *order, st supervisor.Streams) (execution, error) {
	start := o.start()
	if start.ID == "" {
		// The answer to Start may be lost together with the connection.
		start.ID = newUUID()
		o.id = start.ID
	}
	start.KillOnDisconnect, start.StreamStdin = true, st.Stdin != nil
	start.HoldOutput = st.Stdout != nil && st.Stderr != nil // which follow attaches to
	created := time.Now()
	err := r.persist(ctx, func(s api.Supervisor) error {
		_, err := s.Start(ctx, start)
		return err
	})
	x := &remoteExecution{remote: r, id: start.ID, created: created, done: make(chan *spec.Response, 1)}
	if err != nil {
		if ctx.Err() != nil {
			// It may have been started all the same. A daemon that does not answer ends it
			// when nobody takes it over.
			_ = x.kill(syscall.SIGKILL, true, abandonPatience)
			err = fault.Wrap(fault.Cancelled, "start the execution", ctx.Err())
		}
		r.close()
		return nil, err
	}
	r.resume = func(ctx context.Context, s api.Supervisor) error { return takeOver(ctx, s, start) }
	go func() { x.done <- x.follow(ctx, st) }()
	return x, nil
}

// takeOver makes an execution belong to a new connection: a repeated Start does.
// It is not repeated for an execution that is not there, which it would begin anew.
func takeOver(ctx context.Context, s api.Supervisor, start *api.StartRequest) error {
	d, err := s.Inspect(ctx, start.ID)
	if hasCode(err, fault.NotFound) || err == nil && !d.Live() {
		return nil // Wait tells
	}
	if err == nil {
		_, err = s.Start(ctx, start)
	}
	return err
}

func hasCode(err error, code fault.Code) bool { return errors.Is(err, &fault.Fault{Code: code}) }

// remoteExecution is an execution of a daemon that this process waits for.
type remoteExecution struct {
	*remote
	id      string
	created time.Time
	done    chan *spec.Response
}

// Wait implements execution.
func (x *remoteExecution) Wait() *spec.Response { return <-x.done }

// killPatience is how long the daemon may take to pass a signal on.
const killPatience = 15 * time.Second

// abandonPatience is how long it may take to hear that a start is given up.
const abandonPatience = time.Second

// Kill implements execution.
func (x *remoteExecution) Kill(sig syscall.Signal, all bool) error {
	return x.kill(sig, all, killPatience)
}

func (x *remoteExecution) kill(sig syscall.Signal, all bool, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return x.persist(ctx, func(s api.Supervisor) error {
		_, err := s.Kill(ctx, x.id, sig, all)
		return err
	})
}

// follow passes the streams on until they end and waits for the response.
func (x *remoteExecution) follow(ctx context.Context, st supervisor.Streams) *spec.Response {
	defer x.close()
	// An error means that it has ended, or that the connection is lost, which Wait tells.
	defer context.AfterFunc(ctx, func() { _ = x.Kill(syscall.SIGKILL, true) })()
	var response *spec.Response
	var err error
	var waiting sync.WaitGroup
	// Beside the streams, so that the response follows their end at once.
	waiting.Go(func() {
		err = x.persist(context.Background(), func(s api.Supervisor) (err error) {
			response, err = s.Wait(context.Background(), x.id)
			return err
		})
	})
	if st.Stdin != nil || st.Stdout != nil || st.Stderr != nil {
		// What did not come through, undelivered tells.
		_ = (&streamer{link: x.link, note: x.note}).attach(context.Background(), x.id, st)
	}
	waiting.Wait()
	if err == nil {
		return response
	}
	// What became of it is not known; it is not a success.
	response = spec.Refused(x.id, err, x.created)
	response.Termination.Reason = spec.ReasonShimLost
	return response
}
