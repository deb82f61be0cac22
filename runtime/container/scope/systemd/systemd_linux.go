// Package systemd makes scopes by the message bus. It stands apart from package scope
// because it brings half of the network's code along.
package systemd

import (
	"context"
	"errors"
	"path"
	"strconv"
	"strings"

	"github.com/coreos/go-systemd/v22/dbus"
	bus "github.com/godbus/dbus/v5"

	"github.com/capsule-run/capsule/runtime/container/scope"
	"github.com/capsule-run/capsule/spec/fault"
)

// Manager is the systemd of this host.
type Manager struct{}

func failed(op string, err error, u scope.Unit) *fault.Fault {
	return fault.Wrap(fault.Cgroup, op, err).WithField("linux.cgroupsPath").WithPath(u.Name)
}

// dial connects with systemd: by the system bus, or where there is none by its own socket.
func dial(ctx context.Context, u scope.Unit) (*dbus.Conn, error) {
	c, err := dbus.NewWithContext(ctx)
	if err != nil {
		return nil, failed("connect with systemd", err, u).
			WithHint("The systemd driver needs a host that systemd runs: use the cgroupfs driver elsewhere (--cgroup-manager=cgroupfs for podman, SystemdCgroup = false for containerd).")
	}
	return c, nil
}

// Start implements scope.Manager.
func (m Manager) Start(ctx context.Context, u scope.Unit, pid int, limits []scope.Property) (string, error) {
	c, err := dial(ctx, u)
	if err != nil {
		return "", err
	}
	defer c.Close()
	say := func(name string, value any) dbus.Property {
		return dbus.Property{Name: name, Value: bus.MakeVariant(value)}
	}
	all := []dbus.Property{dbus.PropDescription("container " + u.Name), dbus.PropSlice(u.Slice), dbus.PropPids(uint32(pid)), say("DefaultDependencies", false),
		// What is in the group is ours, and all controllers are there.
		say("Delegate", true), say("MemoryAccounting", true), say("CPUAccounting", true), say("TasksAccounting", true)}
	all = append(all, known(c, limits)...)
	job := func() error {
		return finished(ctx, func(done chan<- string) error {
			_, err := c.StartTransientUnitContext(ctx, u.Name, "replace", all, done)
			return err
		})
	}
	err = job()
	if is(err, unitExists) {
		// One that has failed is kept until somebody has looked; one that is active stays.
		if c.ResetFailedUnitContext(ctx, u.Name) == nil {
			err = job()
		}
	}
	if is(err, unitExists) {
		return "", failed("start scope", err, u).WithHint("Give every container a cgroupsPath of its own.")
	}
	if err != nil {
		return "", failed("start scope", err, u)
	}
	found, err := c.GetUnitTypePropertyContext(ctx, u.Name, "Scope", "ControlGroup")
	if err != nil {
		return "", errors.Join(failed("look at scope", err, u), m.Stop(ctx, u))
	}
	at, _ := found.Value.Value().(string)
	if !path.IsAbs(at) || path.Clean(at) != at || at == "/" {
		return "", errors.Join(failed("look at scope", errors.New("it has no control group"), u), m.Stop(ctx, u))
	}
	return at, nil
}

// Set implements scope.Manager.
func (Manager) Set(ctx context.Context, u scope.Unit, limits []scope.Property) error {
	if len(limits) == 0 {
		return nil
	}
	c, err := dial(ctx, u)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetUnitPropertiesContext(ctx, u.Name, true, known(c, limits)...); err != nil {
		return failed("change scope", err, u)
	}
	return nil
}

// Stop implements scope.Manager.
func (Manager) Stop(ctx context.Context, u scope.Unit) error {
	c, err := dial(ctx, u)
	if err != nil {
		return err
	}
	defer c.Close()
	err = finished(ctx, func(done chan<- string) error {
		_, err := c.StopUnitContext(ctx, u.Name, "replace", done)
		return err
	})
	if err != nil && !is(err, noSuchUnit) {
		return failed("stop scope", err, u)
	}
	if err := c.ResetFailedUnitContext(ctx, u.Name); err != nil && !is(err, noSuchUnit) {
		return failed("forget scope", err, u)
	}
	return nil
}

// Errors of systemd by their names.
const (
	unitExists = "org.freedesktop.systemd1.UnitExists"
	noSuchUnit = "org.freedesktop.systemd1.NoSuchUnit"
)

// finished queues a job and waits for its end.
func finished(ctx context.Context, queue func(chan<- string) error) error {
	done := make(chan string, 1)
	if err := queue(done); err != nil {
		return err
	}
	select {
	case result := <-done:
		if result != "done" {
			return errors.New("systemd's job is " + result)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func is(err error, name string) bool {
	var e bus.Error
	return errors.As(err, &e) && e.Name == name
}

// known are those of the properties that this systemd has.
func known(c *dbus.Conn, list []scope.Property) []dbus.Property {
	var all []dbus.Property
	version := -1
	for _, p := range list {
		if p.Since > 0 && version < 0 {
			version = versionOf(c)
		}
		if p.Since <= version || p.Since == 0 {
			all = append(all, dbus.Property{Name: p.Name, Value: bus.MakeVariant(p.Value)})
		}
	}
	return all
}

// versionOf reads the like of "252.19-1" or "v245"; 0: it cannot be read.
func versionOf(c *dbus.Conn) int {
	text, err := c.GetManagerProperty("Version")
	if err != nil {
		return 0
	}
	text = strings.TrimLeft(text, `"v`)
	end := strings.IndexFunc(text, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(text)
	}
	n, err := strconv.Atoi(text[:end])
	if err != nil {
		return 0
	}
	return n
}
