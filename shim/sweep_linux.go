package shim

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/cgroup"
	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
)

// Sweep removes what dead shims left in a state directory: processes and
// cgroups first, the directory last, so that a sweep that is killed half-way
// is done again. The directory of a foreground execution goes with its result:
// its caller is gone. One with a record stays to be collected, with the result
// that it was lost if it has none. With ids only those are looked at.
func Sweep(state layout.State, ids ...string) error {
	var errs []error
	for _, id := range ids {
		if isID(id) {
			errs = append(errs, sweepOne(state, id))
		}
	}
	if len(ids) > 0 {
		return errors.Join(errs...)
	}
	entries, err := os.ReadDir(state.Executions())
	if err != nil {
		return fault.Wrap(fault.IO, "read executions", err)
	}
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
	record, err := shimapi.ReadRecord(dir)
	recorded := !errors.Is(err, os.ErrNotExist)
	waits := recorded && !begun(dir)
	if _, err := os.Lstat(dir.Rootfs()); waits && err != nil {
		return nil // it is to be started
	}
	h, err := cgroup.Detect()
	if err != nil {
		return err
	}
	if err := sweepGroups(h, cgroupName(state, id), recordedGroup(dir)); err != nil {
		return err
	}
	if waits { // a sandbox was ready for it, and is gone
		return removeSandbox(dir)
	}
	if recorded {
		return settle(dir, id, record)
	}
	if err := os.RemoveAll(string(dir)); err != nil {
		return fault.Wrap(fault.IO, "remove execution", err).WithPath(string(dir))
	}
	return nil
}

func sweepGroups(h *cgroup.Host, names ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), teardownTime)
	defer cancel()
	for _, name := range names {
		if name == "" {
			continue
		}
		if err := cgroup.Sweep(ctx, h, name); err != nil {
			return err
		}
	}
	return nil
}

// removeSandbox removes from the directory of an execution that waits what a
// sandbox had there; its root last, as long as which stands something may be left.
func removeSandbox(dir layout.Dir) error {
	if err := os.Remove(dir.Cgroup()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fault.Wrap(fault.IO, "remove", err).WithPath(dir.Cgroup())
	}
	if err := os.RemoveAll(dir.Bundle()); err != nil {
		return fault.Wrap(fault.IO, "remove bundle", err).WithPath(dir.Bundle())
	}
	return nil
}

// recordedGroup is the name of the cgroup of a sandbox that was built before its
// execution had its id. Empty: there was none.
func recordedGroup(dir layout.Dir) string {
	name, err := os.ReadFile(dir.Cgroup())
	if err != nil {
		return ""
	}
	return string(name)
}

// begun tells whether a shim was ever started for an execution, or has ended.
func begun(dir layout.Dir) bool {
	for _, path := range []string{dir.Log(), dir.Result()} {
		if _, err := os.Lstat(path); err == nil {
			return true
		}
	}
	return false
}

// settle makes an execution whose shim is dead ready to be collected. record is
// nil when it cannot be read.
func settle(dir layout.Dir, id string, record *shimapi.Record) error {
	if _, err := os.Lstat(dir.Result()); errors.Is(err, os.ErrNotExist) {
		created := time.Now()
		if record != nil {
			created = record.Created
		}
		lost := spec.Lost(id, fault.New(fault.ShimLost, "sweep the execution", "its shim died before it wrote a result"), created)
		if err := layout.WriteFile(dir.Result(), lost.Encode(false)); err != nil {
			return err
		}
	}
	if err := os.Remove(dir.Rootfs()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fault.Wrap(fault.IO, "remove root", err).WithPath(dir.Rootfs())
	}
	return nil
}
