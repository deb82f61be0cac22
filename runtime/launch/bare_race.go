//go:build race

package launch

// bareChild: under the race detector the compiler's wrappers record calls in
// structures of the Go heap, so the child keeps a copy of it.
const bareChild = false
