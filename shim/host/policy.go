package host

import (
	"strings"

	"github.com/capsule-run/capsule/runtime/breach"
)

// refusal says why a host path may not be given to a sandbox. The zero value:
// nothing speaks against it.
type refusal string

// The reasons, as they stand in messages.
const (
	refusedSystem = "belongs to the host itself"
	refusedAll    = "would share far more than one directory"
	refusedState  = "holds, or lies in, capsule's state directory"
)

// policy decides by path alone. All paths are absolute and clean.
type policy struct {
	// allowed are paths that configuration allows, with everything below them.
	// They override everything but the state directory.
	allowed []string
	// state is the canonical state directory. Empty: none.
	state string
}

// check says why a sandbox may not see p, or nothing.
func (y policy) check(p string) refusal {
	if breach.Of("source_policy") {
		return ""
	}
	if y.state != "" && (within(p, y.state) || within(y.state, p)) {
		return refusedState
	}
	for _, a := range y.allowed {
		if within(p, a) {
			return ""
		}
	}
	switch p {
	case "/", "/home", "/root":
		// A directory below /home or /root is somebody's to give; all are not.
		return refusedAll
	}
	for _, dir := range [...]string{"/proc", "/sys", "/dev", "/run", "/boot", "/etc"} {
		if within(p, dir) {
			return refusedSystem
		}
	}
	return ""
}

// within says whether p is dir or lies below it.
func within(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir) && p[len(dir)] == '/'
}
