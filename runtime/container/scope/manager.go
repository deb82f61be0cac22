package scope

import (
	"context"

	"github.com/capsule-run/capsule/spec/fault"
)

// Manager is systemd, as far as scopes go.
type Manager interface {
	// Start makes a scope with a process in it and with limits, and returns the path of
	// its control group. The scope ends with its last process.
	Start(ctx context.Context, u Unit, pid int, limits []Property) (string, error)
	// Set tells of other limits, until the scope ends.
	Set(ctx context.Context, u Unit, limits []Property) error
	// Stop ends a scope and all in it. One that has ended is no error.
	Stop(ctx context.Context, u Unit) error
}

var manager Manager = none{}

// Use gives a program the systemd driver. It is called before anything else here.
func Use(m Manager) { manager = m }

// Start is that of the manager in use.
func Start(ctx context.Context, u Unit, pid int, limits []Property) (string, error) {
	return manager.Start(ctx, u, pid, limits)
}

// Set is that of the manager in use.
func Set(ctx context.Context, u Unit, limits []Property) error { return manager.Set(ctx, u, limits) }

// Stop is that of the manager in use.
func Stop(ctx context.Context, u Unit) error { return manager.Stop(ctx, u) }

// none is a program without the driver.
type none struct{}

func (none) lacks(u Unit) error {
	return fault.New(fault.Unsupported, "make cgroup", "this program has no systemd driver").WithField("linux.cgroupsPath").WithPath(u.Name)
}

func (n none) Start(_ context.Context, u Unit, _ int, _ []Property) (string, error) {
	return "", n.lacks(u)
}
func (n none) Set(_ context.Context, u Unit, _ []Property) error { return n.lacks(u) }
func (n none) Stop(_ context.Context, u Unit) error              { return n.lacks(u) }
