package main

import (
	"context"
	"os"

	"github.com/capsule-run/capsule/supervisor"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/client"
	"github.com/capsule-run/capsule/supervisor/policy"
)

// openCore gives the supervisor in this process for verbs about executions that
// outlive capsulectl.
func openCore(rules *policy.Policy) (api.Supervisor, func() error, error) {
	s, err := supervisor.New(supervisor.Options{Policy: rules, Warn: warn})
	if err != nil {
		return nil, nil, err
	}
	return s.As(uint32(os.Geteuid())), s.Close, nil
}

// warn tells of damage that was met and survived. Without stderr nobody is told.
func warn(message string) { _, _ = os.Stderr.WriteString("capsulectl: warning: " + message + "\n") }

// dialDaemon connects to the daemon behind a socket. Every verb goes on with a call, which
// tells whether it answers.
func dialDaemon(ctx context.Context, address string) (api.Supervisor, func() error, error) {
	c, err := client.Connect(ctx, address)
	if err != nil {
		return nil, nil, err
	}
	return c, c.Close, nil
}
