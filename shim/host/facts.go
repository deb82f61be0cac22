package host

import (
	"github.com/capsule-run/capsule/shim/bundle"
	"github.com/capsule-run/capsule/shim/shimapi"
)

// Options are what the shim knows before it looks at the host.
type Options struct {
	// ExecutionID and CgroupsPath are handed on to bundle.Host.
	ExecutionID string
	CgroupsPath string
	// StateDir is capsule's state directory: neither it nor anything above or
	// below it is shown to a sandbox. Empty: not known.
	StateDir string
	// Policy is what a configuration says; nil: the built-in rules alone.
	Policy *shimapi.Policy
	// IDMap is used for this probe and more of them, and is the caller's to close.
	// Nil: this one makes its own.
	IDMap *IDMapProbe
	// Known are the facts of an earlier probe of this process. What it finds of itself
	// and of its kernel is taken from there. Nil: there was none.
	Known *Facts
}

// Facts are what Probe found.
type Facts struct {
	// Host is everything that bundle.Build wants, but SlotBase (see
	// AllocateSlot; needed unless Host.Rootless) and Seccomp.
	Host bundle.Host
	// Warnings are sentences for the response: what is weaker than asked.
	Warnings []string
	// Degraded are the names, as in isolation.allow_degraded, of walls and
	// limits that are weaker than asked. Each once.
	Degraded []string
	// IO is zero unless the request bounds the traffic to disks.
	IO IO
}
