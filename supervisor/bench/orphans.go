package bench

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A client that exits before its shim leaves it to this process, when this is a
// subreaper (PR_SET_CHILD_SUBREAPER). Such a child is waited for, so that what
// it used is counted and nothing of it falls into the next measurement.

// children are the processes that have this one as their parent. Nil where the
// kernel does not tell (CONFIG_PROC_CHILDREN).
func children() map[int]bool {
	found := map[int]bool{}
	files, _ := filepath.Glob("/proc/self/task/*/children") // the pattern is right
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		for _, word := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(word); err == nil {
				found[pid] = true
			}
		}
	}
	return found
}

// orphanPatience is how long a shim may take to end after its client.
const orphanPatience = 10 * time.Second

// reap waits for the children that were not there before.
func reap(before map[int]bool) {
	for deadline := time.Now().Add(orphanPatience); time.Now().Before(deadline); {
		left := false
		for pid := range children() {
			if before[pid] {
				continue
			}
			if got, err := syscall.Wait4(pid, nil, syscall.WNOHANG, nil); err == nil && got == 0 {
				left = true
			}
		}
		if !left {
			return
		}
		time.Sleep(time.Millisecond) // until one of them has ended
	}
}
