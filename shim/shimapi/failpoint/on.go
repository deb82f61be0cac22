//go:build failpoints

package failpoint

import (
	"os"
	"syscall"
)

// Variable names the step at which the process kills itself.
const Variable = "CAPSULE_FAILPOINT"

// Here marks a step.
func Here(name string) {
	if os.Getenv(Variable) != name {
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // it does not return
	select {}
}

// Environment is what a child needs to know of the step to die at.
func Environment() []string { return []string{Variable + "=" + os.Getenv(Variable)} }
