// Capsuled runs executions for callers over a unix socket, and minds them until
// they have ended and are in the history. It can be stopped, killed and replaced
// at any moment: executions go on, and the next one takes them over.
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

// Set by the linker.
var version, commit = "(devel)", "unknown"

// Exit codes besides 0.
const (
	exitFailed = 1
	exitUsage  = 2
	exitDrain  = 125 // there is nothing to drain, or it cannot be done
)

func main() { os.Exit(start(os.Args[1:])) }

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

// complain tells a person what went wrong and what helps.
func complain(err error) {
	fmt.Fprintln(os.Stderr, "capsuled:", err)
	if f := fault.From(err, ""); f.Hint != "" {
		fmt.Fprintln(os.Stderr, "hint:", f.Hint)
	}
}

// codeOf is the code of an error, of the first one when there are several.
func codeOf(err error) string {
	return string(fault.From(firstOf(err), fault.IO).Code)
}
