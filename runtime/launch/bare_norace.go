//go:build !race

package launch

// bareChild says that the child has no copy of the Go heap. It then needs
// thread-local storage of its own, because that of the runtime's threads lies there.
const bareChild = true
