//go:build !linux

package seccomp

import (
	"context"

	"github.com/capsule-run/capsule/spec/fault"
)

// Get answers E2008: only Linux has seccomp.
func (c *Cache) Get(_ context.Context, _ string, _ Source) ([]byte, error) {
	return nil, fault.New(fault.Unsupported, "look up filter", "only Linux has system call filters")
}
