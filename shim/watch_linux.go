package shim

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"strings"
)

// watchOOM ends the tree when one of its processes was killed for want of
// memory: v1 kills one and lets the others go on with what is missing then,
// where v2 ends them all. The verdict comes from the kernel's count either way.
func (e *execution) watchOOM(stop <-chan struct{}) {
	w, err := e.group.WatchOOM()
	if w == nil || err != nil {
		return // without it the tree ends with the payload
	}
	over := make(chan struct{})
	go func() {
		select {
		case <-stop:
		case <-over:
		}
		_ = w.Close() // nothing is written to it
	}()
	if w.Wait() && !isClosed(stop) {
		e.killTree()
	}
	close(over)
}

// statesMax bounds how many processes are looked at.
const statesMax = 1024

// processStates counts the processes of the sandbox, its process 1 excepted, by
// their states in the words of proc_pid_stat(5). Nil: there is no control group
// that knows them.
func (e *execution) processStates() map[string]int {
	if e.group == nil || e.sandbox == nil {
		return nil
	}
	pids, err := e.group.Processes()
	if err != nil {
		return nil
	}
	states := make(map[string]int, 4)
	for _, pid := range pids[:min(len(pids), statesMax)] {
		if pid == e.sandbox.Pid && e.plan.HasInit {
			continue
		}
		if state := stateOf(pid); state != "" {
			states[state]++
		}
	}
	return states
}

// stateOf names the state of a process; empty: it is gone.
func stateOf(pid int) string {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	// The name in front may hold anything, parentheses included.
	_, rest, ok := bytes.Cut(text[bytes.LastIndexByte(text, ')')+1:], []byte(" "))
	if !ok || len(rest) == 0 {
		return ""
	}
	switch rest[0] {
	case 'R':
		return "running"
	case 'S', 'I':
		return "sleeping"
	case 'D':
		return "uninterruptible"
	case 'T':
		return "stopped"
	case 't':
		return "traced"
	case 'Z', 'X':
		return "dead"
	}
	return string(rest[:1])
}

// describe is "2 sleeping, 1 stopped".
func describe(states map[string]int) string {
	var parts []string
	for state, n := range states {
		parts = append(parts, strconv.Itoa(n)+" "+state)
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}
