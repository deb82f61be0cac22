package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/client"
)

func request(timeout time.Duration, command ...string) *api.StartRequest {
	r := spec.Default()
	r.Command = command
	r.TimeoutMS = timeout.Milliseconds()
	r.Resources.MemoryBytes = 16 << 20
	return &api.StartRequest{Request: r.Encode()}
}

// wantExit is an error unless the command ended by itself with that code and output.
func wantExit(r *spec.Response, code int, stdout string) error {
	out, err := r.StdoutBytes()
	if err != nil {
		return err
	}
	if r.Status != spec.StatusSuccess || r.ExitCode == nil || *r.ExitCode != code || string(out) != stdout {
		return fmt.Errorf("wrong verdict: %s", r.Encode(true))
	}
	return nil
}

// short runs n executions, several clients at a time, each with its own connection.
func (d *daemon) short(ctx context.Context, n, clients int) error {
	var next atomic.Int64
	return parallel(ctx, d, clients, func(ctx context.Context, c *client.Client, _ int) error {
		for i := next.Add(1); i <= int64(n); i = next.Add(1) {
			r, err := c.Run(ctx, request(time.Minute, "sh", "-c", "echo $0; exit $1", fmt.Sprint(i), fmt.Sprint(i%100)))
			if err == nil {
				err = wantExit(r, int(i%100), fmt.Sprintln(i))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// parallel calls f with n clients of their own. The first error ends all.
func parallel(ctx context.Context, d *daemon, n int, f func(context.Context, *client.Client, int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			c, err := client.Dial(ctx, d.address)
			if err == nil {
				err = errors.Join(f(ctx, c, i), c.Close())
			}
			if err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return nil
}

// many has n sandboxes live at once, sees them in the list, and ends them.
func (d *daemon) many(ctx context.Context, n int) error {
	c, err := client.Dial(ctx, d.address)
	if err != nil {
		return err
	}
	defer c.Close() // nothing is under way
	ids := make([]string, n)
	for i := range ids {
		started, err := c.Start(ctx, request(10*time.Minute, "sleep", "600"))
		if err != nil {
			return err
		}
		ids[i] = started.ID
	}
	for running := 0; running < n; {
		page, err := c.List(ctx, &api.Filter{Statuses: []string{api.StatusRunning}, PageSize: 1000})
		if err != nil {
			return err
		}
		if running = len(page.Executions); running < n {
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	for _, id := range ids {
		if _, err := c.Kill(ctx, id, 0, true); err != nil {
			return err
		}
	}
	for _, id := range ids {
		r, err := c.Wait(ctx, id)
		if err != nil {
			return err
		}
		if r.Termination.Reason != spec.ReasonKilledByCaller {
			return fmt.Errorf("wrong verdict: %s", r.Encode(true))
		}
	}
	return nil
}

// abort attaches to a chatty execution and goes away in the middle, n times.
func (d *daemon) abort(ctx context.Context, n int) error {
	c, err := client.Dial(ctx, d.address)
	if err != nil {
		return err
	}
	defer c.Close() // nothing is under way
	started, err := c.Start(ctx, request(10*time.Minute, "sh", "-c", "while :; do echo tick; sleep 0.01; done"))
	if err != nil {
		return err
	}
	for i := range n {
		if err := giveUp(ctx, d, started.ID, i%2 == 0); err != nil {
			return err
		}
	}
	return c.Remove(ctx, started.ID, true)
}

// giveUp takes a little output and leaves: by its context, or with its connection.
func giveUp(ctx context.Context, d *daemon, id string, politely bool) error {
	c, err := client.Dial(ctx, d.address)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	some := &trigger{after: 3, then: cancel}
	if !politely {
		some.then = func() { _ = c.Close() } // which is the point
	}
	if err := c.Attach(ctx, id, &api.AttachOptions{Stdout: some}); err == nil {
		return errors.New("an attach to an endless execution ended well")
	}
	_ = c.Close() // perhaps for the second time
	return nil
}

// trigger calls then when it has got as many bytes.
type trigger struct {
	after int
	then  func()
	once  sync.Once
}

// Write implements io.Writer.
func (t *trigger) Write(p []byte) (int, error) {
	if t.after -= len(p); t.after <= 0 {
		t.once.Do(t.then)
	}
	return len(p), nil
}

// deaf is a client that never reads: neither the execution nor another client waits for it.
func (d *daemon) deaf(ctx context.Context) error {
	c, err := client.Dial(ctx, d.address)
	if err != nil {
		return err
	}
	defer c.Close() // what it attached to has ended
	const lines = 300_000
	started, err := c.Start(ctx, request(5*time.Minute, "sh", "-c", fmt.Sprintf("sleep 0.5; yes 0123456789 | head -n %d; exit 3", lines)))
	if err != nil {
		return err
	}
	silent, release := io.Pipe()
	defer silent.Close()
	attached := make(chan error, 1)
	deafCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { attached <- c.Attach(deafCtx, started.ID, &api.AttachOptions{Stdout: release}) }()
	other, err := client.Dial(ctx, d.address)
	if err != nil {
		return err
	}
	defer other.Close() // nothing is under way
	r, err := other.Wait(ctx, started.ID)
	if err != nil {
		return err
	}
	if r.ExitCode == nil || *r.ExitCode != 3 || r.Output == nil || r.Output.Stdout.BytesTotal != lines*11 {
		return fmt.Errorf("wrong verdict: %s", strings.TrimSpace(string(r.Encode(false)))[:400])
	}
	cancel()
	_ = silent.CloseWithError(context.Canceled) // lets the writer go
	if err := <-attached; err != nil && fault.From(err, "").Code != fault.Cancelled {
		return err
	}
	return nil
}
