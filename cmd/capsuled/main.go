// Capsuled runs executions for callers over a unix socket, and minds them until
// they have ended and are in the history. It can be stopped, killed and replaced
// at any moment: executions go on, and the next one takes them over.
package main

import (
	"fmt"
	"os"

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

// complain tells a person what went wrong and what helps.
func complain(err error) {
	fmt.Fprintln(os.Stderr, "capsuled:", err)
	if f := fault.From(err, ""); f.Hint != "" {
		fmt.Fprintln(os.Stderr, "hint:", f.Hint)
	}
}
