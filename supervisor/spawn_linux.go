package supervisor

import (
	"cmp"
	"errors"
	"math"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/slack"
	"github.com/capsule-run/capsule/runtime/wire"
	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/shim/shimapi/failpoint"
	shimv1 "github.com/capsule-run/capsule/shim/shimapi/v1/plain"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/spare"
)

// besideEnvironment is runtime/cgroup.Beside, which is the shim's to know.
const besideEnvironment = "CAPSULE_CGROUP=beside"

// spawn makes the execution's directory and starts its shim. A request that is
// not too long begins at once.
func (s *Supervisor) spawn(id string, command []string, request []byte, st Streams) (*Execution, error) {
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
	if len(request) <= shimapi.RequestMax {
		boot.Request = request
		boot.StreamStdin, boot.HoldStdout, boot.HoldStderr = st.Stdin != nil, st.Stdout != nil, st.Stderr != nil
		boot.Direct = len(request) > 0 && st.Stdin == nil
	}
	conn, process, err := s.startShim(boot, lock)
	if err != nil {
		_ = os.RemoveAll(string(dir)) // it holds nothing of worth
		return nil, err
	}
	e.process = process
	if boot.Direct {
		e.direct = conn
		return e, nil
	}
	e.client = wire.NewConn(conn)
	e.shim = shimv1.NewShimClient(e.client)
	return e, nil
}

func (s *Supervisor) bootstrap(id string, owner uint32, command []string) shimapi.Bootstrap {
	var rules *shimapi.Policy
	var timeline int64
	if p := s.policy.Load(); p != nil {
		rules, timeline = p.ForShim(owner, command), p.Config().Monitoring.Timeline()
	}
	if d := s.daemon; d != nil {
		timeline = timelineAmong(timeline, d.queue.Snapshot().Running)
	}
	return shimapi.Bootstrap{Policy: rules, TimelineMS: timeline, Version: shimapi.BootstrapVersion, ExecutionID: id, StateDir: s.state,
		SeccompHelper: filepath.Join(filepath.Dir(s.shim), "capsule-seccomp")}
}

// timelineApart is how far apart, in ms, the points of all executions together are at least:
// each wakes a shim, for about a quarter of a millisecond of a processor, and those of a
// thousand executions would take more than a machine of two has.
const timelineApart = 5

// timelineAmong is the time between the first points of a time line, in ms, of one among so
// many that run: a multiple of what is configured. 0: the shim's own; below: there is none.
func timelineAmong(configured int64, running int) int64 {
	if configured < 0 {
		return configured
	}
	every := cmp.Or(configured, shimapi.TimelineMS)
	return every * max(1, (int64(running)*timelineApart+every-1)/every)
}

// makeLocked makes a directory and locks it. A directory that nobody has
// locked belongs to a dead shim, and whoever finds it removes it; between
// mkdir and flock that may strike this one, so it is made again.
func makeLocked(dir layout.Dir) (*os.File, error) {
	for range 100 {
		if err := os.Mkdir(string(dir), 0o700); err != nil {
			if os.IsExist(err) {
				return nil, errTaken()
			}
			return nil, fault.Wrap(fault.IO, "make execution directory", err)
		}
		f, err := openDirectory(dir)
		if errors.Is(err, os.ErrNotExist) {
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

func errTaken() error {
	return fault.New(fault.InvalidValue, "make execution", "an execution with this id exists").WithField("/execution_id").
		WithHint("Leave the id out, or choose another.")
}

func linked(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return !ok || st.Nlink > 0
}

// startShim starts the process, unless one waits already, and returns our end of
// its connection.
func (s *Supervisor) startShim(boot shimapi.Bootstrap, lock *os.File) (net.Conn, *process, error) {
	message, err := boot.Encode()
	if err != nil {
		return nil, nil, err
	}
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
	rights := unix.UnixRights(int(lock.Fd()), int(log.Fd()))
	conn, process := s.spareShim(message, rights)
	if conn == nil {
		if conn, process, err = s.newShim(message, rights); err != nil {
			return nil, nil, err
		}
	}
	failpoint.Here("supervisor.start.shim")
	return conn, process, nil
}

// spareShim gives the message to the shim that this process started early, if
// there is one, it is the program that is wanted, and it lives. Nil: none.
func (s *Supervisor) spareShim(message, rights []byte) (*net.UnixConn, *process) {
	fd, pid, ok := spare.Take(s.shim)
	if !ok {
		return nil, nil
	}
	p := &process{pid: pid}
	conn, err := connectionOf(fd)
	if err == nil {
		if err = tell(conn, message, rights); err == nil {
			return conn, p
		}
		conn.Close() // ends it, if it has not ended already
	}
	go p.wait()
	return nil, nil
}

// newShim starts a shim that finds its message. The process is the last step:
// what fails after its start would leave one that runs an execution of which
// callers were told that it does not.
func (s *Supervisor) newShim(message, rights []byte) (*net.UnixConn, *process, error) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fault.Wrap(fault.SystemCall, "socketpair", err)
	}
	theirs := os.NewFile(uintptr(ends[1]), "shim")
	defer theirs.Close()
	conn, err := connectionOf(ends[0])
	if err != nil {
		return nil, nil, err
	}
	if err := tell(conn, message, rights); err != nil {
		conn.Close()
		return nil, nil, fault.Wrap(fault.IO, "write bootstrap message", err)
	}
	// It holds its connection under every number that it uses later.
	process, err := s.startProcess([]string{"capsule-shim"}, theirs, theirs, theirs, theirs, theirs)
	if err != nil {
		conn.Close()
		return nil, nil, fault.Wrap(fault.Unreachable, "start capsule-shim", err).WithPath(s.shim).
			WithHint("Install capsule-shim beside capsulectl, or set CAPSULE_SHIM to its path.")
	}
	return conn, process, nil
}

// tell writes the bootstrap message. The socket holds all of it without a
// reader.
func tell(conn *net.UnixConn, message, rights []byte) error {
	n, _, err := conn.WriteMsgUnix(message, rights, nil)
	if err == nil && n < len(message) {
		_, err = conn.Write(message[n:])
	}
	return err
}

// connectionOf makes a connection of a descriptor, which it takes over.
func connectionOf(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "shim")
	defer f.Close() // FileConn has its own copy
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, fault.Wrap(fault.IO, "connect to shim", err)
	}
	return conn.(*net.UnixConn), nil
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
func (s *Supervisor) startProcess(args []string, files ...*os.File) (p *process, err error) {
	fds := make([]uintptr, len(files))
	for i, f := range files {
		fds[i] = f.Fd()
	}
	// What our own caller left open is not for it either; an older kernel than
	// 5.11 knows no such flag, and there it stays.
	_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	// A session of its own: signals of the caller's terminal are not for it.
	env := append([]string{shimapi.EnvironmentGC, shimapi.EnvironmentMemory, shimapi.EnvironmentPath}, failpoint.Environment()...)
	if s.daemon != nil {
		env = append(env, shimapi.EnvironmentDaemon)
	}
	if s.beside {
		env = append(env, besideEnvironment)
	}
	p = new(process)
	slack.During(shimapi.TimerSlack, func() {
		p.pid, err = syscall.ForkExec(s.shim, args, &syscall.ProcAttr{Dir: "/", Env: env, Files: fds, Sys: &syscall.SysProcAttr{Setsid: true}})
	})
	return p, err
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
