package shim

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/cgroup"
	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/spec/fault"
)

// Sweep removes what dead shims left in a state directory: processes and
// cgroups first, the directory last, so that a sweep that is killed half-way
// is done again. A finished result that nobody collected goes too: its
// foreground caller is gone.
func Sweep(state layout.State) error {
	entries, err := os.ReadDir(state.Executions())
	if err != nil {
		return fault.Wrap(fault.IO, "read executions", err)
	}
	var errs []error
	for _, entry := range entries {
		if isID(entry.Name()) {
			errs = append(errs, sweepOne(state, entry.Name()))
		}
	}
	return errors.Join(errs...)
}

// isID tells whether a name is shaped like an execution id; anything else in
// the directory is not ours to remove.
func isID(name string) bool {
	for i, c := range []byte(name) {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		hex := c >= '0' && c <= '9' || c >= 'a' && c <= 'f'
		if dash != (c == '-') || !dash && !hex {
			return false
		}
	}
	return len(name) == 36
}

// claim takes the lock of an execution's directory. It is false when its shim
// lives, and when the directory was removed since it was opened: its name may
// be that of a live execution again.
func claim(fd int) bool {
	if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) != nil {
		return false
	}
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Nlink > 0
}

func sweepOne(state layout.State, id string) error {
	dir := state.Execution(id)
	fd, err := unix.Open(string(dir), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil // gone already, or not an execution
	}
	defer unix.Close(fd)
	if !claim(fd) {
		return nil
	}
	h, err := cgroup.Detect()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), teardownTime)
	defer cancel()
	if err := cgroup.Sweep(ctx, h, id); err != nil {
		return err
	}
	if err := os.RemoveAll(string(dir)); err != nil {
		return fault.Wrap(fault.IO, "remove execution", err).WithPath(string(dir))
	}
	return nil
}
