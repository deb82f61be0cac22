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
	cut     bool
	db      *guard.DB
	lock    *lockFile
	limits  atomic.Pointer[Limits]
	ending  atomic.Bool
	// compactLeast is the constant of that name, less in tests.
	compactLeast int64
	// remember is how many ids of removed executions are remembered.
	remember uint64

	// queue guards pending; writer is held by the one that commits.
	queue   sync.Mutex
	pending []*operation
	writer  sync.Mutex
	// large is held by the one that stages a large output.
	large sync.Mutex

	// state guards totals and shares, which are written with writer held too.
	state  sync.Mutex
	totals totals
	// shares is what is kept of each owner; nil: not counted yet. since is by how much they
	// have changed while they are counted, which who holds counting does.
	shares, since map[uint32]share
	counting      sync.Mutex
}

// Open opens the history at path, or begins one; the directory is made with
// mode 0700, the file with 0600. A file that is damaged, empty, or of another
// format is renamed, and a new one begun: see Damaged. Errors: IO with a hint
// when another supervisor has it open, or it cannot be read, made or written.
func Open(path string, o Options) (*Store, error) {
	s := &Store{path: path, compactLeast: compactLeast, remember: rememberedIDs}
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
	if err := s.dropCopy(); err != nil {
		return err
	}
	if err := s.examine(); err != nil {
		return err
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
			err = s.prepare(fresh)
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

// errUnprepared is that an existing file wants a change before it is used.
var errUnprepared = errors.New("something is to be written first")

// prepare makes or checks the buckets, drops what a crash left half written,
// and reads the totals. A file that was closed in order is only read.
func (s *Store) prepare(fresh bool) error {
	if fresh {
		return s.db.Update(func(tx *bbolt.Tx) error { return create(tx) })
	}
	err := s.db.View(func(tx *bbolt.Tx) error {
		if err := checkFormat(tx); err != nil {
			return err
		}
		if k, _ := tx.Bucket([]byte(bucketStaging)).Cursor().First(); k != nil || !s.readTotals(tx) {
			return errUnprepared
		}
		return nil
	})
	if !errors.Is(err, errUnprepared) {
		return err
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		if err := dropStaged(tx); err != nil {
			return err
		}
		return s.loadTotals(tx)
	})
}

// buckets are those of this package.
func buckets() []string {
	return []string{bucketMeta, bucketRecords, bucketIDs, bucketBodies, bucketStaging, bucketRemoved, bucketOrder}
}

// create makes the buckets of a new file.
func create(tx *bbolt.Tx) error {
	for _, name := range buckets() {
		if _, err := tx.CreateBucket([]byte(name)); err != nil {
			return err
		}
	}
	if err := tx.Bucket([]byte(bucketMeta)).Put([]byte(keyVersion), seal([]byte(keyVersion), []byte(formatVersion))); err != nil {
		return err
	}
	return putTotals(tx, totals{})
}

// checkFormat is errFormat unless the file is of this package and version.
func checkFormat(tx *bbolt.Tx) error {
	for _, name := range buckets() {
		if tx.Bucket([]byte(name)) == nil {
			return fmt.Errorf("%w: it has no bucket %s", errFormat, name)
		}
	}
	if v, err := unseal([]byte(keyVersion), tx.Bucket([]byte(bucketMeta)).Get([]byte(keyVersion))); err != nil || string(v) != formatVersion {
		return fmt.Errorf("%w: version %q", errFormat, v)
	}
	return nil
}

// Damaged is the name under which a damaged file was set aside by Open; empty:
// it was sound.
func (s *Store) Damaged() string { return s.damaged }

// Cut tells whether Open met a file that ended within a page, none of whose
// used pages is missing: somebody cut it, and met no more than unused space. It
// is in use, and whole again.
func (s *Store) Cut() bool { return s.cut }

// DB is the open database, for other packages' buckets. It must not be closed.
func (s *Store) DB() *guard.DB { return s.db }

// Close waits for what is being written and closes the file. No method may be
// called afterwards, nor a transaction of DB be running.
func (s *Store) Close() error {
	s.writer.Lock()
	defer s.writer.Unlock()
	err := s.db.Close()
	if err == nil && !s.db.Met() {
		s.vouch()
	}
	if closeErr := s.lock.Close(); err == nil {
		err = closeErr
	}
	return guard.Fault(err, s.path)
}

// vouch saves the next Open the check, if nobody touches the closed file before.
// Kernels stamp a write with a time that some milliseconds share: with one of our
// own, any later write changes it.
func (s *Store) vouch() {
	if err := os.Chtimes(s.path, time.Time{}, time.Now()); err != nil {
		return // a check too many does no harm
	}
	if info, err := os.Lstat(s.path); err == nil {
		s.lock.set(soundness(info))
	}
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
