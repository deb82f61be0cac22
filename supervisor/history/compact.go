package history

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/history/guard"
)

const (
	// compactLeast is how much must be free in the file to be worth a copy, in bytes.
	compactLeast = 16 << 20
	// compactMargin is how much the disk must have beyond the copy: bbolt grows
	// files by as much at a time, and others write too.
	compactMargin = 32 << 20
)

// Compacted is what Compact did.
type Compacted struct {
	// Before and After are the sizes of the file in bytes.
	Before, After int64
}

// Compact gives the space back that removed executions took: the file itself
// never shrinks. It is done when at least half of the file is free, so that all
// copies together write no more than what was removed; otherwise, and when the
// file is small, nothing is done and nil returned. What is stored meanwhile
// waits. Errors: IO with a hint when the disk has no room for the copy.
func (s *Store) Compact() (*Compacted, error) {
	s.writer.Lock()
	defer s.writer.Unlock()
	size, free, err := s.space()
	if err != nil || free < s.compactLeast || free < size-free {
		return nil, err
	}
	if err := room(s.path, size-free); err != nil {
		return nil, err
	}
	c := &Compacted{}
	if c.Before, err = length(s.path); err != nil {
		return nil, err
	}
	if err := s.db.Compact(soundFile); err != nil {
		return nil, err
	}
	c.After, err = length(s.path)
	return c, err
}

// soundFile is what is wrong with the file at path.
func soundFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	cut, problem, err := checkFile(f, info.Size())
	if cut {
		problem = errors.Join(problem, errors.New("it ends within a page"))
	}
	return errors.Join(problem, err)
}

// space is how many bytes of the file bbolt uses, and how many of these are free
// pages. A commit of another package that runs at the time may hide it, which the
// checksum of the meta page or the kind of the other one tells: none are free then.
func (s *Store) space() (size, free int64, err error) {
	f, err := os.Open(s.path)
	if err != nil {
		return 0, 0, guard.Fault(err, s.path)
	}
	defer func() { _ = f.Close() }() // it was only read
	head := make([]byte, maxPageSize+pageHeader+metaBytes)
	n, _ := f.ReadAt(head, 0) // what is missing is told by meta
	c := &checker{file: head[:n]}
	_, list, err := c.meta()
	if err != nil || list == noFreelist {
		return 0, 0, nil //nolint:nilerr // the next call may find more
	}
	var page [24]byte
	if _, err := f.ReadAt(page[:], int64(list*c.pageSize)); err != nil {
		return 0, 0, guard.Fault(err, s.path)
	}
	count := uint64(binary.NativeEndian.Uint16(page[10:]))
	if count == 0xFFFF {
		count = binary.NativeEndian.Uint64(page[16:])
	}
	if binary.NativeEndian.Uint16(page[8:]) != flagFreelist || count > c.pages {
		return 0, 0, nil
	}
	return int64(c.pages * c.pageSize), int64(count * c.pageSize), nil
}

// room is a fault unless the disk has place for a copy of so many bytes.
func room(path string, bytes int64) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(path), &fs); err != nil {
		return guard.Fault(os.NewSyscallError("statfs", err), path)
	}
	if have := int64(fs.Bavail) * int64(fs.Bsize); have < bytes+compactMargin {
		return fault.New(fault.IO, "compact history", fmt.Sprintf("%d bytes are free where %d are needed", have, bytes+compactMargin)).WithPath(path).
			WithHint("Free space on its file system: the history gives its own unused space back by a copy.")
	}
	return nil
}

func length(path string) (int64, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return 0, guard.Fault(err, path)
	}
	return info.Size(), nil
}

// dropCopy removes what a compaction left that was killed.
func (s *Store) dropCopy() error {
	if err := os.Remove(guard.Copy(s.path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
