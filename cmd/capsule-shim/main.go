// Capsule-shim runs one execution. A supervisor starts it with a bootstrap
// message on descriptor 0; `capsule-shim sweep STATE [ID...]` removes what dead
// shims left; `capsule-shim doctor USER [PATH...]` examines the host for
// capsulectl; `capsule-shim inside` tells how a sandbox looks that it is the command
// of. It is not for use by hand.
package main

import "os"

func main() {
	if err := run(); err != nil {
		_, _ = os.Stderr.WriteString("capsule-shim: " + err.Error() + "\n") // nobody else is left to tell
		os.Exit(1)
	}
}
