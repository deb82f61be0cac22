//go:build !linux

package main

import (
	"fmt"
	"runtime"

	"github.com/capsule-run/capsule/spec/fault"
)

// start tells the version, and refuses everything else with E2008.
func start(args []string) int {
	if len(args) == 1 && (args[0] == "--version" || args[0] == "-version") {
		fmt.Println("capsuled", version, commit)
		return 0
	}
	f := fault.New(fault.Unsupported, "start capsuled", "the daemon needs Linux; this is "+runtime.GOOS)
	f.Hint = "On darwin, capsulectl run works without a daemon. Elsewhere, run capsuled on a Linux host."
	complain(f)
	return exitFailed
}
