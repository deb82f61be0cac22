package container

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/launch"
	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/spec/fault"
)

// joins are the namespaces of a process that are not those of this one.
func joins(pid int) ([]plan.Join, error) {
	var all []plan.Join
	for _, n := range []struct {
		name string
		kind uint64
	}{{"user", plan.CloneNewUser}, {"ipc", plan.CloneNewIPC}, {"uts", plan.CloneNewUTS}, {"net", plan.CloneNewNet}, {"pid", plan.CloneNewPID},
		{"cgroup", plan.CloneNewCgroup}, {"time", plan.CloneNewTime}, {"mnt", plan.CloneNewNS}} {
		p := "/proc/" + strconv.Itoa(pid) + "/ns/" + n.name
		theirs, err := os.Readlink(p)
		if errors.Is(err, os.ErrNotExist) && n.kind == plan.CloneNewTime {
			continue // a kernel without them
		}
		if err != nil {
			return nil, fault.Wrap(fault.Namespace, "read namespace", err).WithPath(p)
		}
		if ours, err := os.Readlink("/proc/self/ns/" + n.name); err == nil && ours == theirs {
			continue
		}
		all = append(all, plan.Join{Kind: n.kind, Path: p, Field: "linux.namespaces"})
	}
	return all, nil
}

// Started is a process that was executed in a container.
type Started struct {
	sb  *launch.Sandbox
	Pid int
}

// Exec runs one more process in a container, with its walls: namespaces, control
// group, filter, and what the process' own object says of the rest. The caller waits
// for it or leaves it.
func (r *Runtime) Exec(id string, p *specs.Process, o Stdio) (*Started, error) {
	if err := privileged(); err != nil {
		return nil, err
	}
	// Before the lock: the container's accounts may be a file that never answers.
	now, err := r.Glance(id)
	if err != nil {
		return nil, err
	}
	if now.Process.alive() {
		p = withHome(p, func() (*os.File, error) {
			return openAccounts("/proc/"+strconv.Itoa(now.Process.Pid)+"/root", "/etc/passwd")
		})
	}
	c, err := r.Open(id)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	switch st := c.status(); st {
	case specs.StateRunning, specs.StateCreated:
	default:
		return nil, fault.New(fault.InvalidValue, "exec", "the container is "+string(st)).WithField("id")
	}
	if own := c.Config.Process; own != nil && p.ExecCPUAffinity == nil {
		other := *p
		other.ExecCPUAffinity = own.ExecCPUAffinity
		p = &other
	}
	c.Config.Process = p
	if err := checkStdio(p, o); err != nil {
		return nil, err
	}
	f, err := r.facts(&c.Config, o)
	if err != nil {
		return nil, err
	}
	l := launcher{r: r, c: c, stdio: o}
	sb, err := r.enter(c, &l, f)
	if err != nil {
		return nil, err
	}
	// What is in the container may stop the new process, and must not hold up by that
	// who wants to end the container.
	c.Close()
	err = l.follow(sb)
	if err == nil {
		err = l.pidFile(sb.Pid)
	}
	if err != nil {
		sb.Abandon()
		return nil, err
	}
	return &Started{sb, sb.Pid}, nil
}

// enter starts a process in the namespaces of the container's first one.
func (r *Runtime) enter(c *Container, l *launcher, f plan.Facts) (*launch.Sandbox, error) {
	l.of = c.Process
	list, err := joins(c.Process.Pid)
	if err != nil {
		return nil, err
	}
	s := c.Config
	linux := *s.Linux
	linux.Namespaces = nil // every one is entered
	for _, j := range list {
		if j.Kind == plan.CloneNewUser {
			linux.Namespaces = []specs.LinuxNamespace{{Type: specs.UserNamespace, Path: j.Path}}
			f.Container.GroupsFirst = !f.Container.NoSetgroups && deniesGroups(strconv.Itoa(c.Process.Pid))
		}
	}
	s.Linux, s.Root = &linux, nil
	return l.start(func(tasks int) (*plan.Plan, error) {
		f.Tasks = tasks
		return plan.Exec(&s, f, list)
	})
}

// follow goes along with a later process until it executes its command.
func (l *launcher) follow(sb *launch.Sandbox) error {
	if err := l.terminal(sb); err != nil {
		return err
	}
	if err := l.arrive(sb); err != nil {
		return err
	}
	_, err := sb.Started()
	return err
}

// arrive goes along from where all is done for a process until it is there and has its filter.
func (l *launcher) arrive(sb *launch.Sandbox) error {
	// A filter that takes privilege is loaded before there is the process that the agent is
	// told of.
	early, listener := !l.c.Config.Process.NoNewPrivileges && l.plan.Listens, -1
	if early {
		fd, err := sb.Descriptor()
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if listener = fd; sb.Continue() != nil {
			return fault.New(fault.MonitorFailed, "exec", "the process ended when its filter was loaded")
		}
	}
	err := l.born(sb, func(pid int) error {
		if err := l.late(pid); err != nil || !early {
			return err
		}
		return l.tellAgent(listener, pid)
	})
	if err != nil || early {
		return err
	}
	return l.listener(sb)
}

// somewhere calls start on the CPUs on which a later process is to be until it is in the
// control group. The caller's goroutine is locked to its thread.
func somewhere(p *specs.Process, start func() (*launch.Sandbox, error)) (sb *launch.Sandbox, err error) {
	if p.ExecCPUAffinity == nil || p.ExecCPUAffinity.Initial == "" {
		return start()
	}
	fail := func(op string, err error) error {
		return fault.Wrap(fault.SystemCall, op, err).WithField("process.execCPUAffinity.initial")
	}
	mask, _ := plan.CPUs(p.ExecCPUAffinity.Initial) // checked by the plan
	var own, first unix.CPUSet
	if err := unix.SchedGetaffinity(0, &own); err != nil {
		return nil, fail("sched_getaffinity", err)
	}
	for i := range 8 * len(mask) {
		if mask[i/8]&(1<<(i%8)) != 0 {
			first.Set(i)
		}
	}
	if err := unix.SchedSetaffinity(0, &first); err != nil {
		return nil, fail("sched_setaffinity", err)
	}
	defer func() {
		if back := unix.SchedSetaffinity(0, &own); back != nil && err == nil {
			sb.Abandon()
			sb, err = nil, fail("sched_setaffinity", back)
		}
	}()
	return start()
}

// late sets what plan.Exec leaves out.
func (l *launcher) late(pid int) error {
	p := l.c.Config.Process
	if p.Scheduler == nil {
		return nil
	}
	attr := plan.SchedulerAttr(p.Scheduler)
	if _, _, errno := unix.Syscall(unix.SYS_SCHED_SETATTR, uintptr(pid), uintptr(unsafe.Pointer(unsafe.SliceData(attr))), 0); errno != 0 {
		return fault.Wrap(fault.SystemCall, "sched_setattr", errno).WithField("process.scheduler")
	}
	return nil
}

// Wait waits for the process and returns its wait status.
func (s *Started) Wait() (syscall.WaitStatus, error) {
	exit, err := s.sb.Exited()
	s.sb.Leave()
	return exit.Status, err
}

// Leave lets the process be.
func (s *Started) Leave() { s.sb.Leave() }

// insideHook gives a function that calls a hook in the container's namespaces. It has no
// descriptor but its three. Before pivot_root it is a program of the host and runs as
// root. After it (walled) it is one of the container's root, which nobody vouches for: it
// gets what the container's command gets and no more.
func (r *Runtime) insideHook(c *Container, walled bool) func(specs.Hook, []byte) error {
	return func(h specs.Hook, state []byte) error {
		stdin, err := memory("state", state)
		if err != nil {
			return err
		}
		defer stdin.Close()
		output, err := memory("output", nil)
		if err != nil {
			return err
		}
		defer output.Close()
		args := h.Args
		if len(args) == 0 {
			args = []string{h.Path}
		}
		other := *c
		linux := *c.Config.Linux
		other.Config.Linux = &linux
		process := specs.Process{}
		if walled {
			process = *c.Config.Process
			process.Terminal = false
		} else {
			linux.Seccomp = nil
		}
		process.Args, process.Env, process.Cwd = args, h.Env, "/"
		other.Config.Process = &process
		f, err := r.facts(&other.Config, Stdio{})
		if err != nil {
			return err
		}
		f.Container.File, f.Container.AllCapabilities = h.Path, !walled
		l := launcher{r: r, c: &other, stdio: Stdio{Streams: [3]*os.File{stdin, output, output}}, outside: !walled}
		sb, err := r.enter(&other, &l, f)
		if err != nil {
			return err
		}
		if err := l.follow(sb); err != nil {
			sb.Abandon()
			return err
		}
		ctx, cancel := hookTime(h)
		defer cancel()
		late := ended(ctx, sb.Pid)
		exit, err := sb.Exited()
		sb.Leave()
		if late != nil || err != nil || exit.Status == 0 {
			return errors.Join(late, err)
		}
		said := make([]byte, 2000)
		n, _ := output.ReadAt(said, 0) // its end is no error
		return errors.New("wait status " + strconv.Itoa(int(exit.Status)) + ": " + strings.TrimSpace(string(said[:n])))
	}
}

// ended waits until a child that leads a session has ended, and kills it with all of its group
// when that takes longer than ctx. The child is not reaped, so its number stays its own.
func ended(ctx context.Context, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fault.Wrap(fault.MonitorFailed, "pidfd_open", err)
	}
	defer unix.Close(fd)
	if gone(ctx, fd) == nil {
		return nil
	}
	if err := unix.Kill(-pid, unix.SIGKILL); err != nil {
		return fault.Wrap(fault.MonitorFailed, "kill", err)
	}
	return errTimeout
}

// memory is a file of memory with the given content, at its beginning.
func memory(name string, content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fault.Wrap(fault.SystemCall, "memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if len(content) > 0 {
		_, err = f.WriteAt(content, 0)
	}
	return f, err
}
