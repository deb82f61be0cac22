package main

import (
	"context"
	"errors"
	"os"
	"syscall"

	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/policy"
)

// connect gives the supervisor to talk to: the daemon of address, or else of
// CAPSULE_ADDRESS, or else of the state directory; without a daemon, or when
// embedded is asked for, the one in this process, with rules. The closer is never nil.
func (c *console) connect(ctx context.Context, address string, embedded bool, rules *policy.Policy) (*link, error) {
	if !embedded {
		l, err := c.daemon(ctx, address)
		if l != nil || err != nil {
			return l, err
		}
	}
	s, closer, err := c.core(rules)
	if err != nil {
		return nil, err
	}
	return &link{supervisor: s, closer: closer}, nil
}

// daemon connects to the daemon. Nil and no error: there is none, and nobody
// named one. Then it costs one system call, or two where a daemon has died.
func (c *console) daemon(ctx context.Context, address string) (*link, error) {
	if address == "" {
		address = c.environment("CAPSULE_ADDRESS")
	}
	named := address != ""
	if named {
		var i invocation
		if err := modeAddress(&i, address); err != nil {
			return nil, err
		}
		address = i.address
	} else {
		state, err := layout.Find("")
		if err != nil {
			return nil, err
		}
		address = state.Socket()
		// What is wrong with the state directory the embedded supervisor tells.
		if _, err := os.Lstat(address); err != nil {
			return nil, nil
		}
	}
	dial := func(ctx context.Context) (api.Supervisor, func() error, error) { return c.dial(ctx, address) }
	s, closer, err := dial(ctx)
	if err == nil {
		return &link{supervisor: s, closer: closer, dial: dial, sleep: c.sleep, patience: c.patience}, nil
	}
	if !named && nobodyListens(err) {
		return nil, nil
	}
	f := *fault.From(err, fault.Unreachable)
	if f.Path == "" {
		f.Path = address
	}
	if f.Hint == "" {
		f.Hint = "Start capsuled, or leave the daemon out with --embedded."
	}
	return nil, &f
}

// nobodyListens says that a socket was left behind by a daemon that is gone.
func nobodyListens(err error) bool {
	f := fault.From(err, fault.IO)
	for _, errno := range []syscall.Errno{syscall.ECONNREFUSED, syscall.ENOENT} {
		if f.Errno == errno || errors.Is(err, errno) {
			return true
		}
	}
	return false
}
