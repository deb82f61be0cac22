//go:build !linux || !amd64

package spare

// Take finds nothing: no shim is started early on this platform.
func Take(string) (connection, pid int, ok bool) { return -1, 0, false }

// Discard has nothing to end.
func Discard() {}
