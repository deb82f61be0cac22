package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/capsule-run/capsule/spec/fault"
)

// start returns the exit code.
func start(args []string) int {
	o, err := parse(args, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return exitUsage // parse has said why
	case o.version:
		fmt.Println("capsuled", version, commit)
		return 0
	case o.drain:
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		if err := drain(ctx, o.address); err != nil {
			complain(err)
			return exitDrain
		}
		return 0
	}
	if err := run(o, signalsOf(), newLog(&o, os.Stderr)); err != nil {
		complain(err)
		return exitFailed
	}
	return 0
}

// codeOf is the code of an error, of the first one when there are several.
func codeOf(err error) string {
	return string(fault.From(firstOf(err), fault.IO).Code)
}
