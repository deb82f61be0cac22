package guard

import (
	"errors"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"

	"github.com/capsule-run/capsule/shim/shimapi/failpoint"
	"github.com/capsule-run/capsule/spec/fault"
)

// compactBatch is how much one transaction of a copy writes, in bytes: pages that
// are not yet committed are in memory.
const compactBatch = 8 << 20

// Copy is where Compact puts the copy before it takes the place of the file at
// path. One that a crash left is of no worth.
func Copy(path string) string { return path + ".compact" }

// Compact replaces the file with a copy of what it holds, which gives the space
// of free pages back; bbolt by itself only uses them again. Writers wait, readers
// do not. Before the copy takes the file's place sound is asked about it. Killed
// at any moment, the one or the other is there, whole, and both hold the same.
// Errors: as Update; the file is as it was then.
func (d *DB) Compact(sound func(path string) error) error {
	d.writer.Lock()
	defer d.writer.Unlock()
	if f := d.stuck.Load(); f != nil {
		return f
	}
	copied := Copy(d.path)
	err := d.copy(copied)
	if err == nil {
		err = sound(copied)
	}
	if err == nil {
		err = d.replace(copied)
	}
	if err != nil {
		if gone := os.Remove(copied); gone != nil && !errors.Is(gone, os.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}
	return Fault(err, d.path)
}

// copy makes the copy, durable.
func (d *DB) copy(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	bolt, err := d.open(path)
	if err != nil {
		return err
	}
	failpoint.Here("supervisor.compact.begun")
	bolt.NoSync = true // a half copy is of no worth: one sync at the end is enough
	err = d.attempt(func() error { return bbolt.Compact(bolt, d.bolt, compactBatch) })
	failpoint.Here("supervisor.compact.copied")
	if err == nil {
		err = d.attempt(bolt.Sync)
	}
	if closed := d.attempt(bolt.Close); err == nil {
		err = closed
	}
	if err == nil {
		err = syncPath(path)
	}
	failpoint.Here("supervisor.compact.synced")
	return err
}

// replace puts the copy in the place of the file.
func (d *DB) replace(path string) error {
	fresh, err := d.open(path)
	if err != nil {
		return err
	}
	if err := os.Rename(path, d.path); err != nil {
		return errors.Join(err, d.attempt(fresh.Close))
	}
	failpoint.Here("supervisor.compact.renamed")
	if err := syncPath(filepath.Dir(d.path)); err != nil {
		// After a crash the old file may be back, without what would be written now.
		d.stuck.CompareAndSwap(nil, fault.Wrap(fault.IO, "sync the directory of the database", err).WithPath(d.path).
			WithHint("Look at the disk, then restart the supervisor."))
	}
	d.starting.Lock()
	old := d.bolt
	d.bolt = fresh
	d.starting.Unlock()
	failpoint.Here("supervisor.compact.replaced")
	return d.attempt(old.Close) // waits for those that still read
}

// syncPath makes a file or the entries of a directory durable.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	err = f.Sync()
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}
