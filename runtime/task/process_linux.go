package task

import (
	"os"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec/fault"
)

// process is the first process of a container, or one that was executed in it.
type process struct {
	task    *task
	exec    string // its id. Empty: the first one
	streams *streams
	spec    *specs.Process // of an executed one

	// order is held while it is started and while its end is told: containerd must hear
	// of the one before the other.
	order sync.Mutex
	ended chan struct{} // closed once status and at are set
	// look is called with its number before that is given up, and may be called before. Nil:
	// nobody looks. Set it before watch.
	look func(pid int)

	mu      sync.Mutex
	pid     int // 0: not yet
	started bool
	reaped  bool // its number may be another's
	status  uint32
	wait    unix.WaitStatus // status is made of it
	known   bool            // wait is set
	at      time.Time
}

// The states of api/types/task/task.proto.
const (
	stateCreated = 1
	stateRunning = 2
	stateStopped = 3
	statePaused  = 4
)

func newProcess(t *task, exec string, s *streams) *process {
	return &process{task: t, exec: exec, streams: s, ended: make(chan struct{})}
}

// number is the pid, 0 before there is one.
func (p *process) number() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pid
}

// done tells whether the process has ended, and that is told.
func (p *process) done() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// signal sends a signal to the process while it is ours: a number that has not been
// waited for is nobody else's.
func (p *process) signal(sig unix.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pid == 0 || p.reaped {
		return unix.ESRCH
	}
	return unix.Kill(p.pid, sig)
}

// watch waits for the process, our child, without holding a thread, and calls end with its status once
// it is gone.
func (p *process) watch(pid int, end func()) error {
	p.mu.Lock()
	p.pid = pid
	p.mu.Unlock()
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return fault.Wrap(fault.MonitorFailed, "pidfd_open", err)
	}
	file := os.NewFile(uintptr(fd), "process")
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return fault.Wrap(fault.MonitorFailed, "watch process", err)
	}
	go func() {
		defer file.Close()
		if raw.Read(func(uintptr) bool { return p.reap(unix.WNOHANG) }) != nil {
			for !p.reap(0) { // the poller does not take it: this goroutine holds a thread
			}
		}
		end()
	}()
	return nil
}

// reap takes the wait status. False: there is none yet.
func (p *process) reap(flags int) bool {
	if flags == 0 {
		_ = unix.Waitid(unix.P_PID, p.pid, nil, unix.WEXITED|unix.WNOWAIT|unix.WALL, nil) // without the lock; what it says comes again below
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.look != nil {
		p.look(p.pid)
	}
	var status unix.WaitStatus
	pid, err := unix.Wait4(p.pid, &status, unix.WALL|unix.WNOHANG, nil)
	switch {
	case err == unix.EINTR || err == nil && pid == 0:
		return false
	case err != nil:
		p.status = 255 // nobody knows
	case status.Signaled():
		p.status = 128 + uint32(status.Signal())
	default:
		p.status = uint32(status.ExitStatus())
	}
	p.wait, p.known = status, err == nil
	p.reaped, p.at = true, time.Now()
	return true
}

// waitStatus is how the process ended in the words of wait(2). Not known: somebody else
// took it. Call it once it has ended.
func (p *process) waitStatus() (status unix.WaitStatus, known bool, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.wait, p.known, p.at
}

// result is how the process ended. Call it after ended.
func (p *process) result() (status uint32, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status, p.at
}
