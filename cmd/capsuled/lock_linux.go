package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/spec/fault"
)

const (
	// lockPatience is for a predecessor that is just ending.
	lockPatience = 500 * time.Millisecond
	// forkPatience is for one that is dead: a process that it forked may hold its
	// descriptors until it executes its program, on a busy host for seconds.
	forkPatience = 10 * time.Second
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
	for began := time.Now(); ; time.Sleep(lockPause) {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil || err != unix.EWOULDBLOCK && err != unix.EINTR {
			break
		}
		if waited := time.Since(began); waited > forkPatience || waited > lockPatience && alive(holder(f)) {
			break
		}
	}
	if err == unix.EWOULDBLOCK {
		held := ""
		if pid := holder(f); pid > 0 {
			held = fmt.Sprintf(", pid %d", pid)
		}
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

// holder is the process that holds the lock, as far as its file tells; 0: it does not.
func holder(f *os.File) int {
	var content [32]byte
	n, _ := f.ReadAt(content[:], 0) // nothing is told of what cannot be read
	pid, err := strconv.Atoi(strings.TrimSpace(string(content[:n])))
	if err != nil {
		return 0
	}
	return pid
}

// alive: what is not known is taken to live.
func alive(pid int) bool { return pid <= 0 || unix.Kill(pid, 0) != unix.ESRCH }
