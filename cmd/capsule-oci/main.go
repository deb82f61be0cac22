// Capsule-oci is an OCI runtime: containerd, CRI-O and podman call it as they call
// runc and crun. It builds a container through the same launch plan as every sandbox
// of capsule, with the walls that the container's configuration has.
//
//	capsule-oci [GLOBAL FLAG...] create|start|run|state|kill|delete|exec|ps|list|events|pause|resume|update|spec|features [FLAG...] ID [...]
package main

import (
	"errors"
	"os"
)

// version and commit are set by the linker.
var version, commit = "unknown", ""

func main() {
	err := run(os.Args)
	var status exitStatus
	switch {
	case errors.As(err, &status):
		os.Exit(int(status))
	case err != nil:
		os.Exit(1) // it is told already
	}
}

// exitStatus is that of a process which this one stands for.
type exitStatus int

// Error is never shown.
func (exitStatus) Error() string { return "exit status" }
