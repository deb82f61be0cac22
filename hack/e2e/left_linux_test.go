package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// checkNothingLeft waits until nothing of the test's executions exists. What is
// killed needs a moment to be gone, and a shim removes its directory after it
// has answered.
func (c *capsule) checkNothingLeft() {
	c.Helper()
	deadline := time.Now().Add(patient(5 * time.Second))
	for {
		left := c.left()
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			c.Errorf("left behind:\n%s", strings.Join(left, "\n"))
			return
		}
		time.Sleep(2 * time.Millisecond) // the end of strangers sends no event
	}
}

// child is a process whose parent is this one.
type child struct {
	pid         int
	name, state string
}

func living() (list []child) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is well formed
	for _, path := range stats {
		text, err := os.ReadFile(path)
		before, after := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
		if err != nil || after < 0 {
			continue // it has ended
		}
		c := child{name: string(text[before+1 : after])}
		var parent int
		if _, err := fmt.Sscan(string(text[after+1:]), &c.state, &parent); err != nil || parent != os.Getpid() {
			continue
		}
		if c.pid, err = strconv.Atoi(string(bytes.TrimSpace(text[:before]))); err == nil {
			list = append(list, c)
		}
	}
	return list
}

// left lists processes, groups, mounts and directories that still exist.
func (c *capsule) left() []string {
	left := children()
	entries, err := os.ReadDir(filepath.Join(stateDir(), "executions"))
	if err != nil && !os.IsNotExist(err) {
		return []string{err.Error()}
	}
	for _, e := range entries {
		left = append(left, contents(filepath.Join(stateDir(), "executions", e.Name()))...)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return []string{err.Error()}
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, stateDir()) {
			left = append(left, "mount "+line)
		}
	}
	if len(left) > 0 {
		return left // the search of the groups costs most
	}
	return c.groups()
}

// children reaps those that have ended and lists the others.
func children() []string {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if err == unix.ECHILD {
			return nil
		}
		if err == nil && pid > 0 || err == unix.EINTR {
			continue
		}
		break
	}
	var left []string
	for _, c := range living() {
		left = append(left, fmt.Sprintf("process %d (%s) %s", c.pid, c.name, c.state))
	}
	return left
}

// groups lists the control groups of the test's executions.
func (c *capsule) groups() []string {
	var left []string
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // groups of others come and go
		}
		for _, id := range c.ids {
			if strings.Contains(d.Name(), id) {
				left = append(left, "group "+path)
			}
		}
		return nil
	})
	if err != nil {
		left = append(left, err.Error())
	}
	return left
}

// contents lists a directory for a message, with the text of the shim's log.
func contents(dir string) []string {
	var list []string
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // it is going away
		}
		text := ""
		if d.Name() == "shim.log" {
			b, _ := os.ReadFile(path)
			text = string(b)
		}
		list = append(list, strings.TrimSpace(fmt.Sprint(d.Type(), " ", path, " ", text)))
		return nil
	})
	return list
}

// TestLeftIsSeen holds the check itself to what it has to see: an orphan, and a
// directory.
func TestLeftIsSeen(t *testing.T) {
	c := begin(t)
	orphan := exec.Command("sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $!")
	out, err := orphan.Output()
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(stateDir(), "executions", "left")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if left := strings.Join(c.left(), "\n"); !strings.Contains(left, "process "+strconv.Itoa(pid)+" (s") || !strings.Contains(left, dir) {
		t.Errorf("left: %q", left)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil { // our child: it cannot be another's number
		t.Error(err)
	}
	if err := os.Remove(dir); err != nil {
		t.Error(err)
	}
}
