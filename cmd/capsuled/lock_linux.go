package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/spec/fault"
)

const (
	// lockPatience is for a predecessor that is just ending, and for the moment
	// in which a process that it forked still holds its descriptors.
	lockPatience = 500 * time.Millisecond
	lockPause    = 10 * time.Millisecond
)

// takeLock makes this process the only capsuled of a state directory, until the
// file is closed or the process ends, however it does. The file itself stays:
// removing it would let two processes lock two files of the same name.
func takeLock(state layout.State) (*os.File, error) {
	path := state.Lock()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fault.Wrap(fault.IO, "open lock", err).WithPath(path)
	}
	for deadline := time.Now().Add(lockPatience); ; time.Sleep(lockPause) {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil || err != unix.EWOULDBLOCK && err != unix.EINTR || time.Now().After(deadline) {
			break
		}
	}
	if err == unix.EWOULDBLOCK {
		held := holder(f)
		f.Close()
		return nil, fault.New(fault.InvalidValue, "lock the state directory", "capsuled runs on it already"+held).WithPath(path).
			WithHint("Stop that one, or give another --state.")
	}
	if err == nil {
		err = write(f, strconv.Itoa(os.Getpid())+"\n")
	}
	if err != nil {
		f.Close()
		return nil, fault.Wrap(fault.IO, "lock the state directory", err).WithPath(path)
	}
	return f, nil
}

// write replaces the content of the lock file, which is for people only: the
// kernel knows who holds the lock.
func write(f *os.File, content string) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(content), 0)
	return err
}

// holder says who holds the lock, as far as its file tells.
func holder(f *os.File) string {
	content, _ := io.ReadAll(io.LimitReader(f, 32)) // nothing is told of what cannot be read
	pid, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil {
		return ""
	}
	return fmt.Sprintf(", pid %d", pid)
}
