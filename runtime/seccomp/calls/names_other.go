//go:build !amd64 && !arm64

package calls

// names: this architecture has no profiles, so no names are needed.
const names = ""
