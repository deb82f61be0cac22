//go:build !failpoints

package failpoint

// Here marks a step.
func Here(string) {}

// Environment is what a child needs to know of the step to die at.
func Environment() []string { return nil }
