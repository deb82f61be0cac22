// Capsule-shim runs one execution. A supervisor starts it with a bootstrap
// message on descriptor 0; `capsule-shim sweep STATE [ID...]` removes what dead
// shims left; `capsule-shim doctor USER [PATH...]` examines the host for
// capsulectl; `capsule-shim inside` tells how a sandbox looks that it is the command
// of. It is not for use by hand.
package main

import (
	"os"

	"github.com/capsule-run/capsule/shim"
	"github.com/capsule-run/capsule/shim/doctor/examine"
	"github.com/capsule-run/capsule/shim/inside"
	"github.com/capsule-run/capsule/shim/layout"
)

func main() {
	var err error
	if len(os.Args) > 2 && os.Args[1] == "sweep" {
		err = shim.Sweep(layout.State(os.Args[2]), os.Args[3:]...)
	} else if len(os.Args) > 2 && os.Args[1] == "doctor" {
		err = examine.Main(os.Args[2], os.Args[3:])
	} else if len(os.Args) > 1 && os.Args[1] == inside.Argument {
		err = inside.Main(os.Stdout)
	} else {
		err = shim.Main()
	}
	if err != nil {
		_, _ = os.Stderr.WriteString("capsule-shim: " + err.Error() + "\n") // nobody else is left to tell
		os.Exit(1)
	}
}
