package history

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/capsule-run/capsule/spec/fault"
)

// lockInterval is how often a lock that another process holds is asked for.
const lockInterval = 10 * time.Millisecond

// soundMark begins what a process leaves in the lock file when it closes the
// history in order. It goes on with what soundness says.
const soundMark = "sound "

// lockFile is the lock beside the database. bbolt has one of its own, but holds
// it only once it trusts the file; this one covers the check as well. The file
// stays when the lock is released: removing it would let two processes lock two
// files of the same name.
type lockFile struct {
	*os.File
	// sound is the database as the one before closed it; empty: it was killed, or
	// what it had open was damaged.
	sound string
}

// lock takes the lock. While it is held, the file has the number of the process.
func lock(path string, patience time.Duration) (*lockFile, error) {
	name := path + ".lock"
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	l := &lockFile{File: f}
	until := time.Now().Add(patience)
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			if was := l.text(); strings.HasPrefix(was, soundMark) {
				l.sound = was
			}
			l.set(strconv.Itoa(os.Getpid()))
			return l, nil
		case errors.Is(err, syscall.EINTR):
			continue
		case !errors.Is(err, syscall.EWOULDBLOCK):
			_ = f.Close() // the error of flock is the one that matters
			return nil, fault.Wrap(fault.IO, "lock history", err).WithPath(path)
		case time.Now().After(until):
			holder := ""
			if pid, err := strconv.Atoi(l.text()); err == nil {
				holder = fmt.Sprintf(" (process %d)", pid)
			}
			_ = f.Close() // nothing was written
			return nil, fault.Wrap(fault.IO, "lock history", errors.New("another supervisor"+holder+" holds it")).WithPath(path).
				WithHint("Talk to that supervisor through its socket, stop it, or use another state directory.")
		}
		time.Sleep(min(lockInterval, max(0, time.Until(until))+time.Millisecond))
	}
}

// text is what stands in the file.
func (l *lockFile) text() string {
	b, _ := io.ReadAll(io.NewSectionReader(l.File, 0, 200)) // without it nothing is known
	return strings.TrimSpace(string(b))
}

// set replaces what stands in the file. Without space there is nothing, which
// costs the next one the number in a message, or a check.
func (l *lockFile) set(text string) {
	if l.Truncate(0) == nil {
		_, _ = l.WriteAt([]byte(text+"\n"), 0)
	}
}

// soundness names a state of the database: whoever writes to it, cuts it or puts
// another in its place makes another one.
func soundness(info os.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%s%d %d %d %d", soundMark, st.Dev, st.Ino, info.Size(), info.ModTime().UnixNano())
}
