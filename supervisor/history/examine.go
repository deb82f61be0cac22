package history

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"syscall"

	"github.com/capsule-run/capsule/spec/fault"
)

// examine looks at the file before bbolt does. One that is no sound tree is set
// aside; one that was cut where it holds nothing gets its length back. One that
// nobody touched since it was closed in order is believed: the walk over all
// pages is what makes a long history slow to open.
func (s *Store) examine() error {
	info, err := os.Lstat(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fault.New(fault.IO, "open history", "it is not a regular file").WithPath(s.path).WithHint("Remove it.")
	case s.lock.sound != "" && s.lock.sound == soundness(info):
		return nil
	}
	f, err := os.OpenFile(s.path, os.O_RDWR|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // at most its length was changed, and that is synced
	cut, problem, err := checkFile(f, info.Size())
	if err != nil {
		return err
	}
	if problem != nil {
		return s.setAside()
	}
	if s.cut = cut; !cut {
		return nil
	}
	if err := f.Truncate((info.Size() + maxPageSize - 1) / maxPageSize * maxPageSize); err != nil {
		return err
	}
	return f.Sync()
}

// maxPageSize is a multiple of all sizes that a page can have.
const maxPageSize = 65536

// checkFile is check over the pages in memory, so that only those are read that
// are looked at. err is that the file cannot be read at all.
func checkFile(f *os.File, size int64) (cut bool, problem, err error) {
	if size == 0 {
		return false, errors.New("it is empty"), nil
	}
	data, err := syscall.Mmap(int(f.Fd()), 0, int(size), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return false, nil, os.NewSyscallError("mmap", err)
	}
	defer func() {
		if err := syscall.Munmap(data); err != nil && problem == nil {
			problem = err // it cannot fail with what Mmap returned
		}
	}()
	// A page that the disk does not give, or that is cut off meanwhile, is a panic
	// instead of the end of the process.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			problem = fmt.Errorf("it cannot be read: %v", p)
		}
	}()
	cut, problem = check(data)
	return cut, problem, nil
}
