package history

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/capsule-run/capsule/spec/fault"
)

// lockInterval is how often a lock that another process holds is asked for.
const lockInterval = 10 * time.Millisecond

// lock takes the lock beside the database. bbolt has one of its own, but holds
// it only once it trusts the file; this one covers the check as well. The file
// stays when the lock is released: removing it would let two processes lock two
// files of the same name.
func lock(path string, patience time.Duration) (*os.File, error) {
	name := path + ".lock"
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	until := time.Now().Add(patience)
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			// The number is only for the message below; without space it is left out.
			if f.Truncate(0) == nil {
				_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
			}
			return f, nil
		case errors.Is(err, syscall.EINTR):
			continue
		case !errors.Is(err, syscall.EWOULDBLOCK):
			_ = f.Close() // the error of flock is the one that matters
			return nil, fault.Wrap(fault.IO, "lock history", err).WithPath(path)
		case time.Now().After(until):
			holder := ""
			if b, err := os.ReadFile(name); err == nil && len(b) > 0 {
				holder = " (process " + strings.TrimSpace(string(b)) + ")"
			}
			_ = f.Close() // nothing was written
			return nil, fault.Wrap(fault.IO, "lock history", errors.New("another supervisor"+holder+" holds it")).WithPath(path).
				WithHint("Talk to that supervisor through its socket, stop it, or use another state directory.")
		}
		time.Sleep(min(lockInterval, max(0, time.Until(until))+time.Millisecond))
	}
}
