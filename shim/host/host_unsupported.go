//go:build !linux

package host

import (
	"os"
	"runtime"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

func unsupported(op string) error {
	return fault.New(fault.Unsupported, op, "namespaces need Linux; this is "+runtime.GOOS)
}

// IDMapProbe finds nothing out on this system.
type IDMapProbe struct{}

// Close does nothing.
func (*IDMapProbe) Close() {}

// Probe is E2008 on this system.
func Probe(*spec.Request, Options) (*Facts, error) { return nil, unsupported("probe host") }

// AllocateSlot is E2008 on this system.
func AllocateSlot(string) (uint32, *os.File, error) {
	return 0, nil, unsupported("allocate host ids")
}
