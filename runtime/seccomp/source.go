package seccomp

import (
	"context"
	"runtime"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Named returns the program of a shipped profile, as Get does. An unknown
// name is E1001.
func (c *Cache) Named(ctx context.Context, name string) ([]byte, error) {
	key, err := HashProfile(name)
	if err != nil {
		return nil, err
	}
	return c.get(ctx, key, "compile-profile", func() ([]byte, error) {
		object, err := Reporting(name)
		return []byte(object), err
	})
}

// Object returns the program of an OCI linux.seccomp object in JSON, as Get
// does. On a hit the object is hashed and not decoded.
func (c *Cache) Object(ctx context.Context, object []byte) ([]byte, error) {
	return c.Get(ctx, HashJSON(object), func() ([]byte, error) { return object, nil })
}

// Exact returns the program that answers what s says and nothing else, as Get
// does: with no floor behind it and no notification in place of a refusal, which
// without a listener would be ENOSYS. It is for the filters of orchestrators.
func (c *Cache) Exact(ctx context.Context, s *specs.LinuxSeccomp) ([]byte, error) {
	object, err := encode(s)
	if err != nil {
		return nil, err
	}
	return c.get(ctx, hash("exact", object, runtime.GOARCH), "compile-exact", func() ([]byte, error) { return object, nil })
}
