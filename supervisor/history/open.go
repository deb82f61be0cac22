package history

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/history/guard"
)

// formatVersion is of the buckets of doc.go.
const formatVersion = "1"

// Names of the buckets and of the keys in meta.
const (
	bucketMeta    = "meta"
	bucketRecords = "records"
	bucketIDs     = "ids"
	bucketBodies  = "bodies"
	bucketStaging = "staging"
	bucketRemoved = "removed"
	bucketOrder   = "order"

	keyVersion = "version"
	keyTotals  = "totals"
)

// Limits bound what Retain leaves.
type Limits struct {
	// Age is how long ago an execution may have ended; 0: any time.
	Age time.Duration
	// Count is how many executions are kept; 0: any number.
	Count int
	// Bytes is how much they may take, output included; 0: any amount.
	Bytes int64
	// OutputBytes is how much stdout and stderr they may have together; 0: any
	// amount. What is above is dropped, and the records stay.
	OutputBytes int64
	// Owners bound what is kept of each owner.
	Owners Owners
}

// Options configure a Store.
type Options struct {
	// Lock is how long to wait while another process has the file open; 0: not at all.
	Lock time.Duration
	// Limits are what Retain applies.
	Limits Limits
}

// Store is an open history. All methods may be called concurrently.
type Store struct {
	path    string
	damaged string
	db      *guard.DB
	lock    *os.File
	limits  atomic.Pointer[Limits]
	// remember is how many ids of removed executions are remembered.
	remember uint64

	// queue guards pending; writer is held by the one that commits.
	queue   sync.Mutex
	pending []*operation
	writer  sync.Mutex
	// large is held by the one that stages a large output.
	large sync.Mutex

	// state guards totals.
	state  sync.Mutex
	totals totals
}

// Open opens the history at path, or begins one; the directory is made with
// mode 0700, the file with 0600. A file that is damaged, empty, or of another
// format is renamed, and a new one begun: see Damaged. Errors: IO with a hint
// when another supervisor has it open, or it cannot be read, made or written.
func Open(path string, o Options) (*Store, error) {
	s := &Store{path: path, remember: rememberedIDs}
	s.SetLimits(o.Limits)
	if err := s.open(o.Lock); err != nil {
		if s.lock != nil {
			_ = s.lock.Close() // the error of open is the one that matters
		}
		return nil, guard.Fault(err, path)
	}
	return s, nil
}

func (s *Store) open(patience time.Duration) error {
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		return err
	}
	var err error
	if s.lock, err = lock(s.path, patience); err != nil {
		return err
	}
	switch problem, err := inspect(s.path); {
	case err != nil:
		return err
	case problem != nil:
		if err := s.setAside(); err != nil {
			return err
		}
	}
	err = s.begin()
	// The pages are sound, but it is another program's, or of another version.
	if errors.Is(err, errFormat) || errors.Is(err, guard.ErrPanicked) {
		if err := s.setAside(); err != nil {
			return err
		}
		return s.begin()
	}
	return err
}

// inspect says what is wrong with the file at path; nil: nothing, or there is none.
func inspect(path string) (problem, err error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fault.New(fault.IO, "open history", "it is not a regular file").WithPath(path).WithHint("Remove it.")
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	return check(f, info.Size()), nil
}

// setAside renames the file for somebody to look at.
func (s *Store) setAside() error {
	_ = s.closeDB() // what it had to write is set aside
	name := s.path + ".damaged-" + strconv.FormatInt(time.Now().UnixNano(), 10)
	if err := os.Rename(s.path, name); err != nil {
		return err
	}
	s.damaged = name
	return nil
}

var errFormat = errors.New("the database has another format")

// begin opens the file with bbolt, makes the buckets of a new one and reads the totals.
func (s *Store) begin() error {
	_, err := os.Lstat(s.path)
	fresh := errors.Is(err, fs.ErrNotExist)
	s.db, err = guard.Open(s.path, &bbolt.Options{
		Timeout:      time.Second,
		FreelistType: bbolt.FreelistMapType,
		NoStatistics: true,
		OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			return os.OpenFile(name, flag|syscall.O_NOFOLLOW, mode)
		},
	})
	if err == nil {
		// The name must outlive a crash as what is stored under it does.
		if fresh {
			err = syncDir(filepath.Dir(s.path))
		}
		if err == nil {
			err = s.db.Update(func(tx *bbolt.Tx) error { return s.prepare(tx, fresh) })
		}
	}
	if err != nil {
		_ = s.closeDB() // the error before it is the one that matters
		if fresh {
			_ = os.Remove(s.path) // half of a new file is worth nothing
		}
	}
	return err
}

// prepare makes or checks the buckets, drops what a crash left half written,
// and reads the totals.
func (s *Store) prepare(tx *bbolt.Tx, fresh bool) error {
	names := []string{bucketMeta, bucketRecords, bucketIDs, bucketBodies, bucketStaging, bucketRemoved, bucketOrder}
	for _, name := range names {
		switch b := tx.Bucket([]byte(name)); {
		case b == nil && !fresh:
			return fmt.Errorf("%w: it has no bucket %s", errFormat, name)
		case b == nil:
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
	}
	meta := tx.Bucket([]byte(bucketMeta))
	if fresh {
		if err := meta.Put([]byte(keyVersion), seal([]byte(keyVersion), []byte(formatVersion))); err != nil {
			return err
		}
		return putTotals(tx, totals{})
	}
	if v, err := unseal([]byte(keyVersion), meta.Get([]byte(keyVersion))); err != nil || string(v) != formatVersion {
		return fmt.Errorf("%w: version %q", errFormat, v)
	}
	if err := dropStaged(tx); err != nil {
		return err
	}
	return s.loadTotals(tx)
}

// Damaged is the name under which a damaged file was set aside by Open; empty:
// it was sound.
func (s *Store) Damaged() string { return s.damaged }

// DB is the open database, for other packages' buckets. It must not be closed.
func (s *Store) DB() *guard.DB { return s.db }

// Close waits for what is being written and closes the file. No method may be
// called afterwards, nor a transaction of DB be running.
func (s *Store) Close() error {
	s.writer.Lock()
	defer s.writer.Unlock()
	err := s.db.Close()
	if closeErr := s.lock.Close(); err == nil {
		err = closeErr
	}
	return guard.Fault(err, s.path)
}

// closeDB closes what is open of the database.
func (s *Store) closeDB() error {
	if s.db == nil {
		return nil
	}
	err := s.db.Close()
	s.db = nil
	return err
}

// syncDir makes the entries of a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if closeErr := d.Close(); err == nil {
		err = closeErr
	}
	return err
}
