package main

import (
	"os"
	"syscall"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/supervisor/spare"
)

func main() {
	if launcher(os.Args[1:]) {
		os.Exit(spec.ExitRefused)
	}
	c := &console{
		stdin: os.Stdin, stdout: descriptor(1), stderr: descriptor(2),
		lookupEnv: os.LookupEnv, open: openEmbedded, catch: (*relay).catch, exit: os.Exit, become: syscall.Exec,
		core: openCore, dial: dialDaemon, size: window, sleep: pause, patience: returnPatience,
	}
	code := c.main(os.Args[1:])
	spare.Discard() // nothing that was refused leaves a process behind
	os.Exit(code)
}

// main dispatches the verb and returns the exit status. run goes straight to
// its code: building the App costs 0.7 ms in a cold process, a tenth of a whole
// execution.
func (c *console) main(args []string) int {
	if len(args) > 0 && args[0] == "run" {
		return c.run(args[1:])
	}
	return c.verbs(args)
}
