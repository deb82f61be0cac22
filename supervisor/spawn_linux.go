package supervisor

import (
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/shim/shimapi/failpoint"
	shimv1 "github.com/capsule-run/capsule/shim/shimapi/v1"
	"github.com/capsule-run/capsule/spec/fault"
)

// shimEnvironment is the whole environment of a shim. It lives for one
// execution and holds a few megabytes: collecting garbage before there are
// dozens would cost more than it frees.
var shimEnvironment = []string{"GOGC=off", "GOMEMLIMIT=48MiB", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}

// spawn makes the execution's directory and starts its shim.
func (s *Supervisor) spawn(id string, command []string) (*Execution, error) {
	dir := s.state.Execution(id)
	lock, err := makeLocked(dir)
	if err != nil {
		return nil, err
	}
	defer lock.Close() // the shim has its own copy
	e := &Execution{id: id, dir: dir, supervisor: s, done: make(chan struct{})}
	if err := s.makeRoom(dir); err != nil {
		return nil, err
	}
	boot := s.bootstrap(id, uint32(os.Geteuid()), command)
	boot.Foreground = true
	conn, process, err := s.startShim(boot, lock)
	if err != nil {
		_ = os.RemoveAll(string(dir)) // it holds nothing of worth
		return nil, err
	}
	e.process = process
	e.client = ttrpc.NewClient(conn)
	e.shim = shimv1.NewShimClient(e.client)
	return e, nil
}

func (s *Supervisor) bootstrap(id string, owner uint32, command []string) shimapi.Bootstrap {
	var rules *shimapi.Policy
	if p := s.policy.Load(); p != nil {
		rules = p.ForShim(owner, command)
	}
	return shimapi.Bootstrap{Policy: rules, Version: shimapi.BootstrapVersion, ExecutionID: id, StateDir: s.state,
		SeccompHelper: filepath.Join(filepath.Dir(s.shim), "capsule-seccomp")}
}

// makeLocked makes a directory and locks it. A directory that nobody has
// locked belongs to a dead shim, and whoever finds it removes it; between
// mkdir and flock that may strike this one, so it is made again.
func makeLocked(dir layout.Dir) (*os.File, error) {
	for range 100 {
		if err := os.Mkdir(string(dir), 0o700); err != nil {
			if os.IsExist(err) {
				return nil, fault.New(fault.InvalidValue, "make execution", "an execution with this id exists").WithField("/execution_id").
					WithHint("Leave the id out, or choose another.")
			}
			return nil, fault.Wrap(fault.IO, "make execution directory", err)
		}
		f, err := os.Open(string(dir))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, fault.Wrap(fault.IO, "open execution directory", err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
			f.Close()
			return nil, fault.Wrap(fault.IO, "lock execution directory", err)
		}
		if info, err := f.Stat(); err == nil && linked(info) {
			return f, nil
		}
		f.Close() // it was swept while we waited for the lock
	}
	return nil, fault.New(fault.IO, "make execution directory", "it disappeared a hundred times")
}

func linked(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return !ok || st.Nlink > 0
}

// startShim starts the process and returns our end of its connection.
func (s *Supervisor) startShim(boot shimapi.Bootstrap, lock *os.File) (net.Conn, *process, error) {
	message, err := boot.Encode()
	if err != nil {
		return nil, nil, fault.Wrap(fault.IO, "encode bootstrap message", err)
	}
	if len(message) > shimapi.MaxBootstrap {
		return nil, nil, fault.New(fault.ConfigFile, "encode bootstrap message", "the policy has more than 64 KiB of names and paths")
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, fault.Wrap(fault.SystemCall, "pipe", err)
	}
	defer r.Close()
	if _, err := w.Write(message); err != nil { // a pipe holds it without a reader
		w.Close()
		return nil, nil, fault.Wrap(fault.IO, "write bootstrap message", err)
	}
	w.Close()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fault.Wrap(fault.SystemCall, "socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(ends[0]), "shim"), os.NewFile(uintptr(ends[1]), "shim")
	defer ours.Close()
	defer theirs.Close()
	dir := s.state.Execution(boot.ExecutionID)
	name := dir.Log()
	if s.daemon != nil {
		name = dir.NewLog() // the next daemon starts what this one could not
	}
	log, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, fault.Wrap(fault.IO, "open shim log", err)
	}
	defer log.Close()
	failpoint.Here("supervisor.start.log")
	// Before the process: what fails after its start would leave one that runs
	// an execution of which callers were told that it does not.
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, nil, fault.Wrap(fault.IO, "connect to shim", err)
	}
	process, err := s.startProcess([]string{"capsule-shim"}, r, log, log, theirs, lock)
	if err != nil {
		conn.Close()
		return nil, nil, fault.Wrap(fault.Unreachable, "start capsule-shim", err).WithPath(s.shim)
	}
	failpoint.Here("supervisor.start.shim")
	return conn, process, nil
}

// process is a child. Its pid is used only until it is waited for: afterwards
// the number may be that of another child.
type process struct {
	pid  int
	once sync.Once
	mu   sync.Mutex
	dead bool
}

// startProcess starts the shim program with the given descriptors from 0 on.
// os.StartProcess would first fork a process only to see whether pidfds work.
func (s *Supervisor) startProcess(args []string, files ...*os.File) (*process, error) {
	fds := make([]uintptr, len(files))
	for i, f := range files {
		fds[i] = f.Fd()
	}
	// A session of its own: signals of the caller's terminal are not for it.
	pid, err := syscall.ForkExec(s.shim, args, &syscall.ProcAttr{Dir: "/", Env: append(shimEnvironment, failpoint.Environment()...), Files: fds, Sys: &syscall.SysProcAttr{Setsid: true}})
	return &process{pid: pid}, err
}

// wait returns when the process is dead. How it ended is told by what it wrote.
func (p *process) wait() {
	p.once.Do(func() {
		var info unix.Siginfo
		for unix.Waitid(unix.P_PID, p.pid, &info, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.dead = true
		_, _ = syscall.Wait4(p.pid, nil, 0, nil) // it is dead: this only reaps it
	})
}

// kill ends the process if it is not dead.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.dead {
		_ = syscall.Kill(p.pid, syscall.SIGKILL) // it is ours and not reaped
	}
}
