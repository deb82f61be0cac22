// Containerd-shim-capsule-v2 is capsule as a runtime of containerd: io.containerd.capsule.v2.
// containerd calls it as it calls every shim:
//
//	containerd-shim-capsule-v2 -namespace NS -address SOCKET -publish-binary FILE -id ID [-bundle DIR] [-debug] start|delete
//	containerd-shim-capsule-v2 -info | -v
//
// `start` leaves a server behind, one for each pod, and prints its address; `delete` takes
// away what a server that was killed has left of a container.
package main

import "os"

// version and commit are set by the linker.
var version, commit = "unknown", ""

func main() {
	if err := run(os.Args); err != nil {
		_, _ = os.Stderr.WriteString("containerd-shim-capsule-v2: " + err.Error() + "\n") // nobody else is left to tell
		os.Exit(1)
	}
}
