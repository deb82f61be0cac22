package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// family are the processes that this one started, and the orphans that the
// kernel gives to it, being a subreaper.
type family struct {
	mu    sync.Mutex
	own   map[int]bool // waited for by who started them; guarded by mu
	start chan func()
}

func newFamily() *family {
	f := &family{own: map[int]bool{}, start: make(chan func())}
	go func() {
		// A parent-death signal comes when the thread that forked ends, so all
		// are started by one that lives as long as the process.
		runtime.LockOSThread()
		for job := range f.start {
			job()
		}
	}()
	return f
}

// begin starts a command that dies with this process.
func (f *family) begin(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.SysProcAttr.Setpgid = true // an interrupt from the terminal is for us to handle
	done := make(chan error)
	f.start <- func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		err := cmd.Start()
		if err == nil {
			f.own[cmd.Process.Pid] = true
		}
		done <- err
	}
	return <-done
}

// end waits for a command that was begun.
func (f *family) end(cmd *exec.Cmd) error {
	err := cmd.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.own, cmd.Process.Pid)
	return err
}

// orphans are the living children that nobody here started. The dead are reaped.
func (f *family) orphans() []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	var left []int
	for _, pid := range children(os.Getpid()) {
		if f.own[pid] {
			continue
		}
		if done, err := unix.Wait4(pid, nil, unix.WNOHANG|unix.WALL, nil); done == pid || err == unix.ECHILD {
			continue
		}
		left = append(left, pid)
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

// commandLine is for messages.
func commandLine(pid int) string {
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // gone: an empty one
	return strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))
}

// startTime is field 22 of /proc/PID/stat; empty: there is no such process.
func startTime(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The command name in parentheses may hold anything; fields follow its end.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 20 {
		return ""
	}
	return fields[19]
}
