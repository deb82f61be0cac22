package main

import (
	"context"
	"io"
	"time"

	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/policy"
)

// console is the world around capsulectl.
type console struct {
	stdin     io.Reader
	stdout    io.Writer
	stderr    io.Writer
	lookupEnv func(string) (string, bool)
	// open gives the supervisor in this process for the run verb, core for the
	// others. Without a policy the built-in rules hold.
	open func(*policy.Policy) (engine, error)
	core func(*policy.Policy) (api.Supervisor, func() error, error)
	// dial connects to the daemon behind a unix socket.
	dial func(ctx context.Context, address string) (api.Supervisor, func() error, error)
	// size is the window of the terminal behind a stream; ok: it is one.
	size  func(stream any) (columns, rows int, ok bool)
	sleep func(context.Context, time.Duration)
	// patience is how long a daemon whose connection was lost may take to come back.
	patience time.Duration
	// catch delivers the signals of this process to the relay and closes its ready.
	catch func(*relay)
	exit  func(int)
	// become executes another program in the place of this one. It returns on failure.
	become func(path string, argv, env []string) error
}

// environment is the value of a variable, empty when it is not set.
func (c *console) environment(name string) string {
	if v, ok := c.lookupEnv(name); ok {
		return v
	}
	return ""
}
