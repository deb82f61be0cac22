package container

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec/fault"
)

// The states of a container besides those of the specification.
const (
	statePaused = specs.ContainerState("paused")
)

// processOf identifies a process that exists.
func processOf(pid int) (*Process, error) {
	start, _, err := stat(pid)
	if err != nil {
		return nil, fault.Wrap(fault.MonitorFailed, "identify process", err)
	}
	boot, err := bootID()
	if err != nil {
		return nil, fault.Wrap(fault.MonitorFailed, "identify boot", err)
	}
	return &Process{Pid: pid, Start: start, Boot: boot}, nil
}

func bootID() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(text)), err
}

// stat reads when a process started and its state: proc_pid_stat(5).
func stat(pid int) (start uint64, state string, err error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, "", err
	}
	// The name may hold anything, a parenthesis too.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 20 {
		return 0, "", unix.EINVAL
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return start, fields[0], err
}

// alive tells whether the process exists and has not ended.
func (p *Process) alive() bool {
	if p == nil {
		return false
	}
	start, state, err := stat(p.Pid)
	if err != nil || start != p.Start || state == "Z" || state == "X" {
		return false
	}
	boot, err := bootID()
	return err == nil && boot == p.Boot
}

// open gives a pidfd of just this process. The caller closes it.
func (p *Process) open() (int, error) {
	fd, err := unix.PidfdOpen(p.Pid, 0)
	if err != nil {
		return -1, err
	}
	if !p.alive() { // asked once the descriptor holds the number
		unix.Close(fd)
		return -1, unix.ESRCH
	}
	return fd, nil
}

// status tells what the container is doing.
func (c *Container) status() specs.ContainerState {
	switch {
	case c.Process == nil && c.busy():
		return specs.StateCreating
	case !c.Process.alive():
		return specs.StateStopped
	case c.Group != nil && c.Group.Frozen():
		return statePaused // before its start too: it would not answer at the gate
	case c.atGate():
		return specs.StateCreated
	}
	return specs.StateRunning
}

// busy tells whether somebody else has the container locked.
func (c *Container) busy() bool {
	if c.lock != nil {
		return false
	}
	f, err := os.Open(c.dir)
	if err != nil {
		return false
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) == unix.EWOULDBLOCK
}

// atGate tells whether the process waits for its start: it holds the gate, which
// execve closes. The link alone is read: what the command has open under that number
// may be of a file system that never answers.
func (c *Container) atGate() bool {
	name, err := os.Readlink("/proc/" + strconv.Itoa(c.Process.Pid) + "/fd/" + strconv.Itoa(c.GateFD))
	return err == nil && name == "socket:["+strconv.FormatUint(c.Gate, 10)+"]"
}

// State is what the specification calls the state of a container.
func (c *Container) State() *specs.State {
	s := &specs.State{Version: specs.Version, ID: c.ID, Status: c.status(), Bundle: c.Bundle, Annotations: c.Config.Annotations}
	if s.Status != specs.StateStopped && c.Process != nil {
		s.Pid = c.Process.Pid
	}
	return s
}

// gatePath is the socket at which the container waits, through the descriptor of its
// directory: the address of a socket is short.
func (c *Container) gatePath() string {
	return "/proc/self/fd/" + strconv.Itoa(int(c.lock.Fd())) + "/" + gateName
}

const gateName = "gate"

func (c *Container) gateFile() string { return filepath.Join(c.dir, gateName) }
