package bench

import (
	"fmt"
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

// Spent is the processor time of this process, of its children that it has
// waited for, and of a daemon with its own; 0: of none.
func Spent(daemon int) (time.Duration, error) {
	var sum time.Duration
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err != nil {
			return 0, err
		}
		sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	if daemon == 0 {
		return sum, nil
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", daemon))
	if err != nil {
		return 0, err
	}
	// proc(5): utime, stime, cutime, cstime are fields 14 to 17; the name in
	// parentheses may hold anything. In hundredths of a second on every Linux.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	for _, f := range fields[11:15] {
		ticks, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(ticks) * time.Second / 100
	}
	return sum, nil
}
