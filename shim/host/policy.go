package host

import (
	"strings"

	"github.com/capsule-run/capsule/runtime/breach"
	"github.com/capsule-run/capsule/shim/shimapi"
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

// use is what a host path is wanted for.
type use int

// The uses.
const (
	useReadable use = iota
	useWritable
	useRootfs
)

// policy decides by path alone. All paths are absolute and clean.
type policy struct {
	// allowed are paths that configuration allows, with everything below them.
	// They override the built-in rules, but for the state directory.
	allowed []string
	// state is the canonical state directory. Empty: none.
	state string
	// configured: the lists below hold.
	configured bool
	section    string
	refused    []string
	below      [3][]string // by use
}

func policyOf(c *shimapi.Policy) policy {
	if c == nil {
		return policy{}
	}
	return policy{allowed: c.Exempt, configured: true, section: c.Section + ".paths.", refused: c.Refused,
		below: [3][]string{useReadable: c.Readable, useWritable: c.Writable, useRootfs: c.Rootfs}}
}

// check says why a sandbox may not see p, or nothing.
func (y policy) check(p string, u use) refusal {
	if breach.Of("source_policy") {
		return ""
	}
	if y.state != "" && (within(p, y.state) || within(y.state, p)) {
		return refusedState
	}
	if y.configured {
		if r := y.judge(p, u); r != "" {
			return r
		}
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

// judge applies what a configuration says.
func (y policy) judge(p string, u use) refusal {
	for _, r := range y.refused {
		if within(p, r) || within(r, p) {
			return refusal("is, lies in or holds what " + y.section + "refused names")
		}
	}
	for _, dir := range y.below[u] {
		if within(p, dir) {
			return ""
		}
	}
	name := [...]string{useReadable: "readable", useWritable: "writable", useRootfs: "rootfs"}[u]
	return refusal("lies below no directory that " + y.section + name + " names")
}

// within says whether p is dir or lies below it.
func within(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir) && p[len(dir)] == '/'
}
