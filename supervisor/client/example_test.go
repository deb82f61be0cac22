package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/google/uuid"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/client"
)

// counting counts what it passes on, so that Attach can be resumed.
type counting struct {
	io.Writer
	n int64
}

func (c *counting) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.n += int64(n)
	return n, err
}

// Example starts an execution that dies with this program, shows its output as it
// comes, and survives a restart of the supervisor.
func Example() {
	const address = "/run/capsule/capsuled.sock"
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()

	start := &api.StartRequest{
		Request:          []byte(`{"command":["sh","-c","for i in 1 2 3; do echo $i; sleep 1; done"]}`),
		ID:               uuid.NewString(), // ours, so that Start can be repeated
		KillOnDisconnect: true,
	}
	stdout, stderr := &counting{Writer: os.Stdout}, &counting{Writer: os.Stderr}
	lost := &fault.Fault{Code: fault.Unreachable}
	attempt := func() error {
		c, err := client.Dial(ctx, address)
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := c.Start(ctx, start); err != nil { // or takes it over
			return err
		}
		err = c.Attach(ctx, start.ID, &api.AttachOptions{
			Stdout: stdout, StdoutOffset: stdout.n,
			Stderr: stderr, StderrOffset: stderr.n,
			Hold: true,
		})
		if err != nil {
			return err
		}
		response, err := c.Wait(ctx, start.ID)
		if err != nil {
			return err
		}
		fmt.Println(response.Status, response.Termination.Reason)
		return nil
	}
	err := attempt()
	for deadline := time.Now().Add(10 * time.Second); errors.Is(err, lost) && time.Now().Before(deadline); {
		time.Sleep(100 * time.Millisecond)
		err = attempt()
	}
	var f *fault.Fault
	if errors.As(err, &f) {
		fmt.Fprintln(os.Stderr, f.Code, f.Field, f.Message())
		fmt.Fprintln(os.Stderr, "hint:", f.Remedy())
	}
}
