// Package guard runs the transactions of an embedded database so that nothing
// in the file can end the process: bbolt panics on pages that make no sense,
// and a file that was cut short under a memory map is a SIGBUS.
package guard

import (
	"errors"
	"fmt"
	"runtime/debug"
	"syscall"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/capsule-run/capsule/spec/fault"
)

// ErrPanicked is in the chain of a fault whose transaction did not return. The
// database may hold a lock for ever afterwards and must not be written again.
var ErrPanicked = errors.New("the database cannot be read")

// View runs f in a read transaction. Values that f sees are valid inside it
// only. Errors: StateUnreadable when the file is damaged, faults of f
// unchanged, IO for all else.
func View(db *bbolt.DB, f func(*bbolt.Tx) error) error {
	return Do(db.Path(), func() error { return db.View(f) })
}

// Update runs f in a write transaction and returns when it is on the disk.
// Errors as View.
func Update(db *bbolt.DB, f func(*bbolt.Tx) error) error {
	return Do(db.Path(), func() error { return db.Update(f) })
}

// Do runs f, which works on the database at path, with panics and memory
// faults turned into StateUnreadable.
func Do(path string, f func() error) (err error) {
	// A setting of this goroutine: a page beyond the end of the file is a panic
	// instead of the end of the process.
	before := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(before)
		if p := recover(); p != nil {
			err = fault.Wrap(fault.StateUnreadable, "read database", fmt.Errorf("%w: %v", ErrPanicked, p)).WithPath(path).
				WithHint("Restart the supervisor: it sets a damaged database aside and begins a new one.")
		}
	}()
	return Fault(f(), path)
}

// Fault gives an error of the database at path a code and a remedy. Faults
// pass unchanged.
func Fault(err error, path string) error {
	var known *fault.Fault
	if err == nil || errors.As(err, &known) {
		return err
	}
	f := fault.Wrap(fault.IO, "use database", err).WithPath(path)
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return f.WithHint("Free space on its file system; nothing that was stored is lost.")
	case errors.Is(err, syscall.EROFS), errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return f.WithHint("Make its directory writable for the user of the supervisor, or choose another one.")
	case errors.Is(err, berrors.ErrTimeout):
		return f.WithHint("Another program has the file open; end it.")
	}
	return f
}
