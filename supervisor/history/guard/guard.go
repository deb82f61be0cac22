// Package guard runs the transactions of an embedded database so that nothing
// in the file can end the process or hold it up: bbolt panics on pages that make
// no sense, in some places with a lock held, and a file that was cut short under
// a memory map is a SIGBUS.
package guard

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/capsule-run/capsule/spec/fault"
)

// ErrPanicked is in the chain of a fault whose transaction met a damaged page.
var ErrPanicked = errors.New("the database cannot be read")

// DB is a database that is only used through View and Update. Both may be
// called concurrently.
type DB struct {
	path    string
	options *bbolt.Options
	// bolt is replaced by Compact, with writer and starting held.
	bolt *bbolt.DB
	// writer and starting stand before the locks of bbolt, which a panic may
	// leave locked: who waits for these finds out.
	writer   sync.Mutex
	starting sync.Mutex
	// stuck is set once bbolt may hold a lock for ever; all is refused then.
	stuck atomic.Pointer[fault.Fault]
	// met is set once a page made no sense.
	met atomic.Bool
}

// Open opens the database at path as bbolt.Open does. Errors: StateUnreadable
// with ErrPanicked, IO.
func Open(path string, o *bbolt.Options) (*DB, error) {
	d := &DB{path: path, options: o}
	var err error
	if d.bolt, err = d.open(path); err != nil {
		return nil, err
	}
	return d, nil
}

// open opens the file at path, which need not be the one of d.
func (d *DB) open(path string) (bolt *bbolt.DB, err error) {
	err = d.attempt(func() (err error) {
		bolt, err = bbolt.Open(path, 0o600, d.options)
		return err
	})
	return bolt, err
}

// Met tells whether a transaction met a damaged page.
func (d *DB) Met() bool { return d.met.Load() }

// Path is the file.
func (d *DB) Path() string { return d.path }

// Close waits for the transactions and closes the file. A database that is stuck
// stays open.
func (d *DB) Close() error {
	d.writer.Lock()
	defer d.writer.Unlock()
	if f := d.stuck.Load(); f != nil {
		return f
	}
	return d.attempt(d.bolt.Close)
}

// View runs f in a read transaction. Values that f sees are valid inside it
// only. Errors: StateUnreadable when the file is damaged, faults of f
// unchanged, IO for all else.
func (d *DB) View(f func(*bbolt.Tx) error) error {
	tx, err := d.begin(false)
	if err != nil {
		return err
	}
	return d.rollback(tx, d.attempt(func() error { return f(tx) }))
}

// Update runs f in a write transaction and returns when it is on the disk.
// Errors as View; nothing has changed then.
func (d *DB) Update(f func(*bbolt.Tx) error) error {
	d.writer.Lock()
	defer d.writer.Unlock()
	tx, err := d.begin(true)
	if err != nil {
		return err
	}
	if err := d.attempt(func() error { return f(tx) }); err != nil {
		return d.rollback(tx, err)
	}
	err = d.attempt(tx.Commit)
	if errors.Is(err, ErrPanicked) {
		// What it knows of free pages may be half of the truth.
		d.stuck.CompareAndSwap(nil, fault.From(err, fault.StateUnreadable))
	}
	// Any other failing commit has undone itself.
	return err
}

// begin starts a transaction, one at a time.
func (d *DB) begin(writable bool) (tx *bbolt.Tx, err error) {
	d.starting.Lock()
	defer d.starting.Unlock()
	if f := d.stuck.Load(); f != nil {
		return nil, f
	}
	err = d.attempt(func() error {
		tx, err = d.bolt.Begin(writable)
		return err
	})
	if errors.Is(err, ErrPanicked) {
		d.stuck.CompareAndSwap(nil, fault.From(err, fault.StateUnreadable))
	}
	return tx, err
}

// rollback ends tx and returns err, or what went wrong with the end.
func (d *DB) rollback(tx *bbolt.Tx, err error) error {
	ended := d.attempt(tx.Rollback)
	if errors.Is(ended, ErrPanicked) {
		d.stuck.CompareAndSwap(nil, fault.From(ended, fault.StateUnreadable))
	}
	if err == nil {
		return ended
	}
	return err
}

// attempt runs f, which works on the database, with panics and memory faults
// turned into StateUnreadable.
func (d *DB) attempt(f func() error) (err error) {
	// A setting of this goroutine: a page beyond the end of the file is a panic
	// instead of the end of the process.
	before := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(before)
		if p := recover(); p != nil {
			d.met.Store(true)
			err = fault.Wrap(fault.StateUnreadable, "read database", fmt.Errorf("%w: %v", ErrPanicked, p)).WithPath(d.path).
				WithHint("Restart the supervisor: it sets a damaged database aside and begins a new one.")
		}
	}()
	return Fault(f(), d.path)
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
