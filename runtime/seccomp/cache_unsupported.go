//go:build !linux

package seccomp

import (
	"context"

	"github.com/capsule-run/capsule/spec/fault"
)

// Get answers E2008: only Linux has seccomp.
func (c *Cache) Get(ctx context.Context, key string, source Source) ([]byte, error) {
	return c.get(ctx, key, "", source)
}

func (c *Cache) get(context.Context, string, string, Source) ([]byte, error) {
	return nil, fault.New(fault.Unsupported, "look up filter", "only Linux has system call filters")
}
