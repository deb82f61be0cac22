package main

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

const stopAbout = `Stop executions: SIGTERM to the command, and after a time the whole tree is killed.
Returns when they have ended, and prints their ids.

Usage:
  capsulectl stop [-t TIME] ID...

Examples:
  capsulectl stop 3f2a
  capsulectl stop -t 0s $(capsulectl ps -q)
`

const killAbout = `Send a signal to the command of executions, SIGKILL unless another is named. With
--all every process of the sandbox is killed, whatever the signal.

Usage:
  capsulectl kill [-s SIGNAL] [--all] ID...

Examples:
  capsulectl kill -s HUP 3f2a
  capsulectl kill --all 3f2a
`

const rmAbout = `Forget executions that have ended: their verdict and their output. With -f those that
live are killed first.

Usage:
  capsulectl rm [-f] ID...

Examples:
  capsulectl rm 3f2a
  capsulectl rm -f $(capsulectl ps -aq)
`

func stopVerb() verb {
	return verb{
		name: "stop", usage: "end executions, politely at first", args: "ID...", least: 1, most: unbounded,
		about: stopAbout, after: idNote, run: stop,
		options: []option{{name: "time", short: 't', value: "TIME", group: groupFlags, usage: "how long the command has after SIGTERM, for example 500ms (default 10s)", take: takeTime}},
	}
}

// takeTime wants a unit: bare numbers are milliseconds with run -t, and seconds
// with docker stop -t.
func takeTime(k *call, v string) error {
	if n, err := strconv.Atoi(v); err == nil && n > 0 {
		f := fault.New(fault.InvalidValue, "", v+" has no unit")
		f.Hint = "Write " + v + "s or " + v + "ms."
		return f
	}
	ms, err := spec.ParseDuration(v)
	k.grace, k.graceGiven = time.Duration(ms)*time.Millisecond, true
	return err
}

func killVerb() verb {
	return verb{
		name: "kill", usage: "send a signal to executions", args: "ID...", least: 1, most: unbounded,
		about: killAbout, after: idNote, run: kill,
		options: []option{
			{name: "signal", short: 's', value: "SIGNAL", group: groupFlags, usage: "name or number (default SIGKILL)", take: takeSignal},
			switchOption("all", 0, "end every process of the sandbox", func(k *call) *bool { return &k.all }),
		},
	}
}

func takeSignal(k *call, v string) error {
	name := strings.ToUpper(v)
	if n, err := strconv.Atoi(v); err == nil && n >= 1 && n <= 64 {
		k.signal = syscall.Signal(n)
	} else if k.signal = signalOf("SIG" + strings.TrimPrefix(name, "SIG")); k.signal == 0 {
		f := fault.New(fault.InvalidValue, "", strconv.Quote(v)+" is no signal")
		f.Hint = "Write a name such as TERM or SIGTERM, or a number from 1 to 64."
		return f
	}
	return nil
}

func rmVerb() verb {
	return verb{
		name: "rm", usage: "forget executions that have ended", args: "ID...", least: 1, most: unbounded,
		about: rmAbout, after: idNote, run: rm,
		options: []option{switchOption("force", 'f', "kill those that live first", func(k *call) *bool { return &k.force })},
	}
}

// stopped is what stop says of one execution in JSON.
type stopped struct {
	ID     string      `json:"execution_id"`
	Status spec.Status `json:"status"`
	Reason spec.Reason `json:"reason"`
}

func stop(ctx context.Context, s *session) (int, error) {
	grace := 10 * time.Second
	if s.graceGiven {
		grace = s.grace
	}
	outcomes := s.each(ctx, func(ctx context.Context, id string) (any, error) {
		r, err := s.stopOne(ctx, id, grace)
		if err != nil {
			return nil, err
		}
		return stopped{id, r.Status, r.Termination.Reason}, nil
	})
	return s.report(outcomes, func(o outcome) string { return o.id })
}

func (s *session) stopOne(ctx context.Context, id string, grace time.Duration) (*spec.Response, error) {
	delivered := false
	if grace > 0 {
		var err error
		if delivered, err = s.link.current().Kill(ctx, id, syscall.SIGTERM, false); err != nil {
			return nil, err
		}
	}
	if delivered {
		patience, cancel := context.WithTimeout(ctx, grace)
		defer cancel()
		r, err := s.wait(patience, id)
		if err == nil || patience.Err() == nil {
			return r, err
		}
	}
	// It does not run yet, has ended, or takes too long.
	if _, err := s.link.current().Kill(ctx, id, syscall.SIGKILL, true); err != nil {
		return nil, err
	}
	return s.wait(ctx, id)
}

func kill(ctx context.Context, s *session) (int, error) {
	sig := s.signal
	if sig == 0 {
		sig = syscall.SIGKILL
	}
	outcomes := s.each(ctx, func(ctx context.Context, id string) (any, error) {
		delivered, err := s.link.current().Kill(ctx, id, sig, s.all)
		if err == nil && !delivered {
			err = fault.Wrap(fault.SystemCall, "signal the command", errors.New("it does not run")).
				WithHint("capsulectl inspect " + id + " shows whether it has ended.")
		}
		return struct {
			ID        string `json:"execution_id"`
			Delivered bool   `json:"delivered"`
		}{id, delivered}, err
	})
	return s.report(outcomes, func(o outcome) string { return o.id })
}

func rm(ctx context.Context, s *session) (int, error) {
	outcomes := s.each(ctx, func(ctx context.Context, id string) (any, error) {
		return struct {
			ID      string `json:"execution_id"`
			Removed bool   `json:"removed"`
		}{id, true}, s.link.current().Remove(ctx, id, s.force)
	})
	return s.report(outcomes, func(o outcome) string { return o.id })
}
