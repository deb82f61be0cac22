package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/shim/shimapi"
)

// shim is a process of ours that was seen to be one.
type shim struct {
	id    string
	pid   int
	start string
}

// shims are the living ones: children of the daemon, or ours when the daemon
// that started them is dead. The directory that a shim holds tells its execution.
func (h *house) shims() []shim {
	parents := []int{os.Getpid()}
	h.mu.Lock()
	if h.daemon != nil {
		parents = append(parents, h.daemon.Process.Pid)
	}
	h.mu.Unlock()
	var found []shim
	for _, parent := range parents {
		for _, pid := range children(parent) {
			if s, ok := h.shimAt(pid); ok {
				found = append(found, s)
			}
		}
	}
	return found
}

// shimAt looks whether a process is a shim of this house. The process 1 of a
// sandbox is a child of its shim, so it is not met here.
func (h *house) shimAt(pid int) (shim, bool) {
	start := startTime(pid)
	dir, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, shimapi.LockFD))
	if err != nil || filepath.Dir(dir) != h.state.Executions() || commandLine(pid) != "capsule-shim" {
		return shim{}, false
	}
	return shim{filepath.Base(dir), pid, start}, true
}

// recorded reads shim.json of a random execution whose command runs.
func (h *house) recorded(r *rand.Rand) (shim, bool) {
	entries, err := os.ReadDir(h.state.Executions())
	if err != nil || len(entries) == 0 {
		return shim{}, false
	}
	id := entries[r.IntN(len(entries))].Name()
	data, err := os.ReadFile(h.state.Execution(id).Shim())
	var record struct {
		Pid       int         `json:"pid"`
		StartTime json.Number `json:"start_time"`
	}
	if err != nil || json.Unmarshal(data, &record) != nil {
		return shim{}, false
	}
	return shim{id, record.Pid, record.StartTime.String()}, true
}

// kill sends SIGKILL. It is false when the shim is gone.
func (s shim) kill() bool {
	fd, err := unix.PidfdOpen(s.pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	// The number may be another's by now; the descriptor cannot become so.
	if s.start == "" || startTime(s.pid) != s.start || commandLine(s.pid) != "capsule-shim" {
		return false
	}
	return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil
}

// strikeShim kills a random shim: one of those with a record, or any, which
// may still be setting up or tidying.
func (h *harness) strikeShim(r *rand.Rand) bool {
	s, ok := shim{}, false
	if r.IntN(2) == 0 {
		s, ok = h.house.recorded(r)
	} else if all := h.house.shims(); len(all) > 0 {
		s, ok = all[r.IntN(len(all))], true
	}
	if !ok {
		return false
	}
	run := h.ledger.of(s.id)
	if run == nil {
		return false
	}
	run.markShim(+1) // before the signal: its verdict may come at once
	if !s.kill() {
		run.markShim(-1)
		return false
	}
	return true
}
