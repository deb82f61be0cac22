package stress

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// settle bounds the wait for what ends by itself.
const settle = 10 * time.Second

// nothingLeft fails the test unless all that the executions made disappears by
// itself within settle.
func nothingLeft(t *testing.T) {
	t.Helper()
	eventually(t, processes, groups, directories, locks, mounts)
}

// nothingLives is nothingLeft for a caller or a shim that was killed: what a
// next start removes may still be there, but nothing that runs.
func nothingLives(t *testing.T) {
	t.Helper()
	eventually(t, processes, locks, mounts)
}

// eventually waits until each look finds nothing.
func eventually(t *testing.T, looks ...func() []string) {
	t.Helper()
	end := time.Now().Add(patient(settle))
	for {
		var left []string
		for _, look := range looks {
			left = append(left, look()...)
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("left behind:\n%s", strings.Join(left, "\n"))
		}
		// What is waited for has no event of its own to wait on.
		pollPause()
	}
}

func pollPause() { time.Sleep(5 * time.Millisecond) }

// processes are the children of this process that live. The dead are reaped;
// no test calls this while a command of its own runs.
func processes() []string {
	var left []string
	for _, pid := range children(os.Getpid()) {
		if done, err := unix.Wait4(pid, nil, unix.WNOHANG|unix.WALL, nil); done == pid || err == unix.ECHILD {
			continue
		}
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // gone: an empty name
		left = append(left, fmt.Sprintf("process %d %q", pid, line))
	}
	return left
}

// children lists the children of a process.
func children(pid int) []int {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // the pattern is valid
	var pids []int
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread or the process has ended
		}
		for _, field := range strings.Fields(string(text)) {
			if n, err := strconv.Atoi(field); err == nil {
				pids = append(pids, n)
			}
		}
	}
	return pids
}

// groups are the control groups of our executions.
func groups() []string {
	var left []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.HasPrefix(d.Name(), "capsule-"+idPrefix()) {
			left = append(left, "cgroup "+path)
		}
		return nil // others come and go meanwhile
	})
	return left
}

// directories are the executions in the state directory.
func directories() []string {
	entries, err := os.ReadDir(state() + "/executions")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return []string{err.Error()}
	}
	var left []string
	for _, entry := range entries {
		left = append(left, "directory "+entry.Name())
	}
	return left
}

// locks are the slots of host ids in use.
func locks() []string {
	f, err := os.OpenFile(state()+"/slots", os.O_RDWR, 0)
	if err != nil {
		return nil // rootless, or not made yet
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock); err != nil {
		return []string{"F_OFD_GETLK: " + err.Error()}
	}
	if lock.Type != unix.F_UNLCK {
		return []string{fmt.Sprintf("slot %d is locked", lock.Start)}
	}
	return nil
}

// mounts are those of the host that lie in our directory.
func mounts() []string {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return []string{err.Error()}
	}
	var left []string
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, scratch()) {
			left = append(left, "mount "+strings.TrimSpace(line))
		}
	}
	return left
}
