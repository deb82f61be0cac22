package supervisor

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/ttrpc"

	"github.com/capsule-run/capsule/shim/layout"
	shimv1 "github.com/capsule-run/capsule/shim/shimapi/v1"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// inlineMax is the largest request that travels inside a message.
const inlineMax = 2 << 20

// killPatience is how long a shim may take to report the end of an execution
// that was cancelled. After that its connection is closed, which ends it too.
const killPatience = 15 * time.Second

// Execution is a started one. Its methods are safe for concurrent use.
type Execution struct {
	id         string
	dir        layout.Dir
	supervisor *Supervisor
	client     *ttrpc.Client
	shim       shimv1.ShimClient
	process    *os.Process
	created    time.Time
	sweep      func() // waits for the removal of what dead shims left

	done     chan struct{} // response is set
	response *spec.Response
}

// ID is the execution's UUID.
func (e *Execution) ID() string { return e.id }

// begin sends the request and follows the execution.
func (e *Execution) begin(ctx context.Context, req *spec.Request, st Streams) {
	e.created = time.Now()
	e.sweep = func() {}
	go func() {
		defer close(e.done)
		e.response = e.follow(ctx, req, st)
	}()
}

// follow drives the shim from Create to the response.
func (e *Execution) follow(ctx context.Context, req *spec.Request, st Streams) *spec.Response {
	// Calls outlive a cancelled ctx: the verdict is wanted all the same.
	calls, end := context.WithCancel(context.Background())
	defer end()
	defer context.AfterFunc(ctx, func() { e.abandon(calls) })()
	var streams sync.WaitGroup
	if err := e.attach(calls, st, &streams); err != nil {
		return e.lost(err)
	}
	create := &shimv1.CreateRequest{Request: req.Encode(), StreamStdin: st.Stdin != nil, Start: true}
	if len(create.Request) > inlineMax {
		if err := layout.WriteFile(e.dir.Request(), create.Request); err != nil {
			_ = e.client.Close() // ends the shim
			return spec.Refused(e.id, err, e.created)
		}
		create.Request = nil
	}
	// Create and Wait go out together; the verdict of a failed Create comes by Wait.
	go func() { _, _ = e.shim.Create(calls, create) }()
	answer, err := e.shim.Wait(calls, &shimv1.WaitRequest{})
	if err != nil {
		return e.lost(err)
	}
	streams.Wait()
	return e.read(answer)
}

// attach streams the execution's output and input.
func (e *Execution) attach(ctx context.Context, st Streams, wg *sync.WaitGroup) error {
	if st.Stdin != nil {
		in, err := e.shim.WriteStdin(ctx)
		if err != nil {
			return err
		}
		go sendStdin(in, st.Stdin)
	}
	if st.Stdout == nil && st.Stderr == nil {
		return nil
	}
	to := map[shimv1.Stream]io.Writer{}
	req := &shimv1.AttachRequest{}
	for id, w := range map[shimv1.Stream]io.Writer{shimv1.Stream_STREAM_STDOUT: st.Stdout, shimv1.Stream_STREAM_STDERR: st.Stderr} {
		if w != nil {
			to[id] = w
			req.Streams = append(req.Streams, id)
		}
	}
	out, err := e.shim.Attach(ctx, req)
	if err != nil {
		return err
	}
	wg.Go(func() { receive(out, to) })
	return nil
}

// receive copies output until it ends. A writer that fails is not written to
// again; the execution goes on, and its response has what was kept.
func receive(from shimv1.Shim_AttachClient, to map[shimv1.Stream]io.Writer) {
	for {
		m, err := from.Recv()
		if err != nil {
			return // io.EOF, or the shim is lost, which Wait tells
		}
		if w := to[m.Stream]; w != nil && len(m.Data) > 0 {
			if _, err := w.Write(m.Data); err != nil {
				delete(to, m.Stream)
			}
		}
	}
}

// sendStdin copies input until either side ends.
func sendStdin(to shimv1.Shim_WriteStdinClient, from io.Reader) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if err := to.Send(&shimv1.WriteStdinRequest{Data: buf[:n]}); err != nil {
				return
			}
		}
		if err != nil {
			_ = to.CloseSend() // a lost shim is told by Wait
			return
		}
	}
}

// read takes the response out of the answer, or from the record on disk.
func (e *Execution) read(answer *shimv1.WaitResponse) *spec.Response {
	data := answer.Response
	if len(data) == 0 {
		var err error
		if data, err = os.ReadFile(e.dir.Result()); err != nil {
			return e.lost(err)
		}
	}
	r, err := spec.DecodeResponse(data)
	if err != nil {
		return spec.Refused(e.id, fault.Wrap(fault.StateUnreadable, "decode response", err), e.created)
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
	f := fault.Wrap(fault.ShimLost, "wait for the execution", cause)
	r := spec.Refused(e.id, f, e.created)
	r.Termination.Reason = spec.ReasonShimLost
	return r
}

// abandon ends the execution because the caller's context is done.
func (e *Execution) abandon(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, killPatience)
	defer cancel()
	if err := e.kill(ctx, &shimv1.KillRequest{All: true}); err != nil {
		_ = e.client.Close() // ends the shim
		return
	}
	select {
	case <-e.done:
	case <-ctx.Done():
		if !errors.Is(ctx.Err(), context.Canceled) {
			_ = e.client.Close()
		}
	}
}

func (e *Execution) kill(ctx context.Context, r *shimv1.KillRequest) error {
	_, err := e.shim.Kill(ctx, r)
	return err
}

// Kill sends a signal to the command, or with all ends every process of the
// sandbox. A command that does not run yet, or no more, is not an error.
func (e *Execution) Kill(sig syscall.Signal, all bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), killPatience)
	defer cancel()
	if err := e.kill(ctx, &shimv1.KillRequest{Signal: int32(sig), All: all}); err != nil {
		return fault.Wrap(fault.Unreachable, "signal the execution", err)
	}
	return nil
}

// Wait blocks until the execution has ended and all streams are delivered. The
// response is never nil; a lost shim yields one with reason shim_lost.
func (e *Execution) Wait() *spec.Response {
	<-e.done
	_ = e.client.Close() // tells the shim that the result is delivered
	if e.response.Termination.Reason == spec.ReasonShimLost {
		_, _ = e.process.Wait() // it is dead; its directory lock is free now
		e.supervisor.sweepDead("")()
	}
	e.sweep()
	go e.process.Wait() // whoever lives on reaps it
	return e.response
}
