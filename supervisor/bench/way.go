package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/supervisor/api"
)

// Way is one way to run the command.
type Way struct {
	Name string
	// Walls says in a few words what it puts around the command.
	Walls string
	// Absent is why the way cannot be measured; empty: it can.
	Absent string
	// Open makes a client. Clients of one way run at the same time.
	Open func(ctx context.Context) (*Client, error)
	// Daemon is the process that does the work for all clients; 0: there is none.
	Daemon int
}

// Client is one caller that waits for each execution before the next.
type Client struct {
	// Once runs the command once and returns the time that it took. What is needed
	// to check the result is not in it.
	Once func(ctx context.Context) (time.Duration, error)
	// Close ends the client.
	Close func() error
}

// Command is a way that starts a process for each execution.
type Command struct {
	Argv, Env []string
	// Stdin names a file; empty: nothing to read.
	Stdin string
	// Check, when not nil, looks at what was printed.
	Check func(said []byte) error
	// On, when not nil, calls its argument, which starts the process, where it has
	// to be started.
	On func(func())
}

// Open makes the function that Way wants.
func (c Command) Open(context.Context) (*Client, error) {
	out, err := os.CreateTemp("", "capsule-bench-")
	if err != nil {
		return nil, err
	}
	// Its name is not needed any more.
	if err := os.Remove(out.Name()); err != nil {
		out.Close()
		return nil, err
	}
	return &Client{Once: func(ctx context.Context) (time.Duration, error) { return c.once(ctx, out) }, Close: out.Close}, nil
}

// once is timed from before fork to after wait.
func (c Command) once(ctx context.Context, out *os.File) (time.Duration, error) {
	if err := errors.Join(ctx.Err(), out.Truncate(0)); err != nil {
		return 0, err
	}
	if _, err := out.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	cmd := exec.Command(c.Argv[0], c.Argv[1:]...)
	cmd.Dir, cmd.Env = "/", c.Env
	if c.Stdin != "" {
		// A file, as a pipe would need a copying goroutine inside the measure.
		in, err := os.Open(c.Stdin)
		if err != nil {
			return 0, err
		}
		defer in.Close()
		cmd.Stdin = in
	}
	cmd.Stdout, cmd.Stderr = out, out
	var took time.Duration
	var err error
	timed := func() {
		start := time.Now()
		err = cmd.Run()
		took = time.Since(start)
	}
	if c.On != nil {
		c.On(timed)
	} else {
		timed()
	}
	if err == nil && c.Check == nil {
		return took, nil
	}
	said := make([]byte, 64<<10)
	n, readErr := out.ReadAt(said, 0)
	if readErr != nil && readErr != io.EOF {
		return 0, errors.Join(err, readErr)
	}
	said = bytes.TrimSpace(said[:n])
	if err != nil {
		return 0, fmt.Errorf("%w: %s", err, FirstLine(said))
	}
	return took, c.Check(said)
}

// FirstLine is enough of what a program said for a message.
func FirstLine(b []byte) string {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	if len(line) > 200 {
		line = line[:200]
	}
	return string(line)
}

// Runner is a connection to a daemon: supervisor/client's Client.
type Runner interface {
	Run(ctx context.Context, r *api.StartRequest) (*spec.Response, error)
	Close() error
}

// Through is a way through a daemon, each client with one connection, from the
// request to the complete response. look, when not nil, is shown every response.
func Through(dial func(ctx context.Context) (Runner, error), request []byte, look func(*spec.Response)) func(ctx context.Context) (*Client, error) {
	return func(ctx context.Context) (*Client, error) {
		c, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		once := func(ctx context.Context) (time.Duration, error) {
			start := time.Now()
			r, err := c.Run(ctx, &api.StartRequest{Request: request})
			took := time.Since(start)
			if err == nil {
				err = Succeeded(r)
			}
			if err == nil && look != nil {
				look(r)
			}
			return took, err
		}
		return &Client{Once: once, Close: c.Close}, nil
	}
}

// Succeeded is an error unless the command ran and exited with 0.
func Succeeded(r *spec.Response) error {
	if r.Status == spec.StatusSuccess && r.ExitCode != nil && *r.ExitCode == 0 {
		return nil
	}
	if r.Error != nil {
		return fmt.Errorf("%s: %s", r.Error.Code, r.Error.Message)
	}
	return fmt.Errorf("the command did not succeed: %s", FirstLine(r.Encode(false)))
}
