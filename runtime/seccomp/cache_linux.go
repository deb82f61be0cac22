package seccomp

import (
	"context"
	"errors"
	"syscall"

	"github.com/capsule-run/capsule/spec/fault"
)

// Get returns the program of a key: struct sock_filter instructions in native
// byte order, 1 to 4096 of them, ready for seccomp(SECCOMP_SET_MODE_FILTER).
// The caller owns the slice.
//
// A hit costs the system calls stat, open, fstat, read, close and geteuid. On
// a miss source is called and the helper compiles, which ctx bounds; a program
// that then cannot be stored is returned all the same, because a cache that
// cannot be written costs time and not safety. Every fault is E2003, or
// what source returned.
func (c *Cache) Get(ctx context.Context, key string, source Source) ([]byte, error) {
	return c.get(ctx, key, "compile", source)
}

// get is Get with the helper's verb: callers' objects are compiled otherwise
// than capsule's own.
func (c *Cache) get(ctx context.Context, key, verb string, source Source) ([]byte, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	id, err := c.helperIdentity()
	if err != nil {
		return nil, err
	}
	if program := c.load(key, id); program != nil {
		return program, nil
	}
	object, err := source()
	if err != nil {
		return nil, err
	}
	program, err := c.compile(ctx, verb, object)
	if err != nil {
		return nil, err
	}
	c.store(key, seal(key, id, program))
	return program, nil
}

func (c *Cache) path(key string) string { return c.Dir + "/" + key + ".bpf" }

// helperIdentity is the size and the change time of the helper: an upgrade
// changes them, and with them every checksum. The library is linked into it.
func (c *Cache) helperIdentity() (identity, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(c.Helper, &st); err != nil {
		return identity{}, fault.Wrap(fault.Seccomp, "find the filter compiler", err).WithPath(c.Helper).
			WithHint("Install capsule-seccomp beside capsule-shim.")
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return identity{}, fault.New(fault.Seccomp, "find the filter compiler", "not a regular file").WithPath(c.Helper).
			WithHint("Install capsule-seccomp beside capsule-shim.")
	}
	return identity{size: uint64(st.Size), changed: uint64(st.Ctim.Nano())}, nil
}

// load reads a cached program, or returns nil when there is none that can be
// trusted. O_NONBLOCK keeps a FIFO in the file's place from blocking the open.
func (c *Cache) load(key string, id identity) []byte {
	fd, err := syscall.Open(c.path(key), syscall.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer syscall.Close(fd) // Nothing was written; an error has no consequence.
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		return nil
	}
	const regular0600 = syscall.S_IFREG | 0o600
	if st.Mode != regular0600 || int(st.Uid) != syscall.Geteuid() || st.Size > 1<<20 || !plausible(int(st.Size)-trailerSize) {
		return nil
	}
	content := make([]byte, st.Size)
	for n := 0; n < len(content); {
		m, err := syscall.Read(fd, content[n:])
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || m == 0 {
			return nil
		}
		n += m
	}
	return unseal(key, id, content)
}
