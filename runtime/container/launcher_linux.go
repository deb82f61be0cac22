package container

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/launch"
	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/spec/fault"
)

// launcher starts one process of a container.
type launcher struct {
	r     *Runtime
	c     *Container
	stdio Stdio
	gate  *os.File // nil: the process does not wait
	plan  *plan.Plan
	// outside leaves the process out of the control group.
	outside bool
	// of is whose namespaces the process enters. Nil: nobody's.
	of *Process
}

// start compiles the plan for as many v1 hierarchies as there are and clones.
func (l *launcher) start(compile func(tasks int) (*plan.Plan, error)) (*launch.Sandbox, error) {
	sb, err := l.startIn(nil, compile)
	if l.of == nil || !errors.Is(err, unix.EBUSY) || !errors.Is(err, &fault.Fault{Code: fault.Cgroup}) {
		return sb, err
	}
	// The container has moved its processes to groups of its own, so as to pass controllers on
	// to them, and v2 has no process beside those.
	dir, err := l.c.Group.OpenOf(l.of.Pid)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return l.startIn(dir, compile)
}

// startIn starts the process in a directory of v2 in place of the group's own. Nil: in that.
func (l *launcher) startIn(instead *os.File, compile func(tasks int) (*plan.Plan, error)) (*launch.Sandbox, error) {
	o := launch.Options{CgroupFD: -1, Gate: l.gate}
	for i, to := range []*int{&o.Stdin, &o.Stdout, &o.Stderr} {
		f, err := l.stream(i)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		*to = int(f.Fd())
	}
	if l.c.Group != nil && !l.outside {
		dir, tasks, err := l.c.Group.Open()
		defer func() {
			if dir != nil {
				dir.Close()
			}
			for _, f := range tasks {
				f.Close()
			}
		}()
		if err != nil {
			return nil, err
		}
		if dir != nil {
			o.CgroupFD = int(dir.Fd())
		}
		if instead != nil {
			o.CgroupFD = int(instead.Fd())
		}
		for _, f := range tasks {
			o.Tasks = append(o.Tasks, int(f.Fd()))
		}
	}
	var err error
	if l.plan, err = compile(len(o.Tasks)); err != nil {
		return nil, err
	}
	prepared, err := launch.Prepare(l.plan, o)
	if err != nil {
		return nil, err
	}
	if l.of != nil && !l.of.alive() {
		// The namespaces are open by its number, which may have been another's already.
		prepared.Close()
		return nil, fault.New(fault.InvalidValue, "exec", "the container has just ended").WithField("id")
	}
	if l.of == nil {
		return prepared.Start()
	}
	return somewhere(l.c.Config.Process, prepared.Start)
}

// stream is a copy of a stream for the process: it goes to where it is already, which
// dup3 refuses. One that the caller has closed is empty.
func (l *launcher) stream(i int) (*os.File, error) {
	from := i
	if f := l.stdio.Streams[i]; f != nil {
		from = int(f.Fd())
	}
	fd, err := unix.FcntlInt(uintptr(from), unix.F_DUPFD_CLOEXEC, 3+l.stdio.Preserve)
	if err == unix.EBADF {
		return os.OpenFile("/dev/null", os.O_RDWR, 0)
	}
	if err != nil {
		return nil, fault.Wrap(fault.SystemCall, "fcntl", err)
	}
	if l.stdio.Streams[i] == nil {
		l.own(fd)
	}
	return os.NewFile(uintptr(fd), "stream"), nil
}

// own gives a pipe of the caller's to the command's user, so that the command can open
// /dev/stdout and its like again, as under runc and crun. It has to be a pipe without a name
// and the caller's own: nobody finds it but who has it already. Of anything else, a file above
// all, the owner stays.
func (l *launcher) own(fd int) {
	p, linux := l.c.Config.Process, l.c.Config.Linux
	if p == nil || p.Terminal {
		return
	}
	uid := int(p.User.UID)
	for _, n := range linux.Namespaces {
		if n.Type != specs.UserNamespace {
			continue
		}
		if !mapped(p.User.UID, linux.UIDMappings) {
			return // it is nobody there, or the namespace is that of a path, whose ids are not known here
		}
		uid = int(HostID(p.User.UID, linux.UIDMappings))
	}
	var of unix.Statfs_t
	var st unix.Stat_t
	if unix.Fstatfs(fd, &of) != nil || of.Type != unix.PIPEFS_MAGIC || unix.Fstat(fd, &st) != nil || int(st.Uid) != os.Geteuid() {
		return
	}
	_ = unix.Fchown(fd, uid, -1) // without it only re-opening fails
}

func mapped(id uint32, maps []specs.LinuxIDMapping) bool {
	return slices.ContainsFunc(maps, func(m specs.LinuxIDMapping) bool { return id >= m.ContainerID && id-m.ContainerID < m.Size })
}

// HostID is what a container's id is in the user namespace of the caller.
func HostID(id uint32, maps []specs.LinuxIDMapping) uint32 {
	for _, m := range maps {
		if id >= m.ContainerID && id-m.ContainerID < m.Size {
			return m.HostID + id - m.ContainerID
		}
	}
	return id
}

// adjust sets what a process cannot be given by itself once it is in its walls.
func (l *launcher) adjust(pid int) error {
	p := l.c.Config.Process
	if p == nil || p.OOMScoreAdj == nil {
		return nil
	}
	name := "/proc/" + strconv.Itoa(pid) + "/oom_score_adj"
	if err := os.WriteFile(name, []byte(strconv.Itoa(*p.OOMScoreAdj)), 0); err != nil {
		return fault.Wrap(fault.LimitUnavailable, "set", err).WithField("process.oomScoreAdj").WithPath(name).
			WithHint("A process without CAP_SYS_RESOURCE can make the number larger only.")
	}
	return nil
}

// terminal hands the master of the process' terminal over and lets it go on.
func (l *launcher) terminal(sb *launch.Sandbox) error {
	p := l.c.Config.Process
	if p == nil || !p.Terminal {
		return nil
	}
	fd, err := sb.Descriptor()
	if err != nil {
		return err
	}
	master := os.NewFile(uintptr(fd), "terminal")
	if err := l.prepare(fd); err != nil {
		master.Close()
		return err
	}
	if l.stdio.ConsoleSocket == "" {
		err = l.stdio.Terminal(master) // it is the receiver's
	} else {
		err = send(l.stdio.ConsoleSocket, "console-socket", []byte("/dev/ptmx"), fd)
		master.Close()
	}
	if err != nil {
		return err
	}
	return sb.Continue()
}

// prepare sets the size. All else is as the kernel makes a terminal: who shows it to a person
// decides on ONLCR, as runc, its shim and conmon have it. A kubelet's client is raw and needs it.
func (l *launcher) prepare(fd int) error {
	size := l.c.Config.Process.ConsoleSize
	if size == nil {
		return nil
	}
	err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(size.Height), Col: uint16(size.Width)})
	if err != nil {
		return fault.Wrap(fault.SystemCall, "set up terminal", err).WithField("process.terminal")
	}
	return nil
}

// handover bounds the wait, in seconds, for who takes a descriptor at a socket: the container's
// creation waits for it, and a full backlog would hold it for ever.
const handover = 10

// uninterrupted calls again what a signal has ended.
func uninterrupted(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// send gives a descriptor, with a text, to whoever listens at a socket, which the field names.
func send(socket, field string, text []byte, fd int) error {
	fail := func(op string, err error) error {
		f := fault.Wrap(fault.IO, op, err).WithPath(socket).WithField(field)
		if err == unix.EAGAIN {
			return f.WithHint("Who listens at this socket takes nothing from it.")
		}
		return f
	}
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fail("socket", err)
	}
	defer unix.Close(s)
	if err := unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: handover}); err != nil { // connect(2) too: socket(7)
		return fail("setsockopt", err)
	}
	// The path may be longer than an address.
	dir, err := os.Open(filepath.Dir(socket))
	if err != nil {
		return fail("open", err)
	}
	defer dir.Close()
	at := &unix.SockaddrUnix{Name: "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + filepath.Base(socket)}
	// With a time, a signal ends either: signal(7).
	if err := uninterrupted(func() error { return unix.Connect(s, at) }); err != nil {
		return fail("connect", err)
	}
	if err := uninterrupted(func() error { return unix.Sendmsg(s, text, unix.UnixRights(fd), nil, 0) }); err != nil {
		return fail("send a descriptor", err)
	}
	return nil
}

// pidFile writes the number of the process, whole or not at all.
func (l *launcher) pidFile(pid int) error {
	name := l.stdio.PidFile
	if name == "" {
		return nil
	}
	// A new file under a name that nobody knows before: the directory may be everybody's.
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".")
	if err == nil {
		_, err = f.WriteString(strconv.Itoa(pid))
		err = errors.Join(err, f.Chmod(0o644), f.Close())
		if err == nil {
			err = os.Rename(f.Name(), name)
		}
		if err != nil {
			_ = os.Remove(f.Name()) // the failure before it is the one to report
		}
	}
	if err != nil {
		return fault.Wrap(fault.IO, "write pid file", err).WithPath(name)
	}
	return nil
}
