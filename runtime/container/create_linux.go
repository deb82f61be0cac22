package container

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/launch"
	"github.com/capsule-run/capsule/runtime/plan"
	"github.com/capsule-run/capsule/spec/fault"
)

// Runtime makes containers and looks after them. Create, Start and Exec are called by a
// goroutine that is locked to its thread: a process is born as that thread's child, in
// namespaces that the thread enters for it, and dies with the thread before it has been
// built. Every process is a child of the calling process, which may wait for it.
type Runtime struct {
	Store
	// Filters is the directory of compiled filters, which many may share. Empty: one
	// below Root.
	Filters string
	// SeccompHelper is the path of capsule-seccomp.
	SeccompHelper string
	// Systemd makes the control groups as scopes of systemd.
	Systemd bool
	// Debug tells more.
	Debug bool
	// Warn is told what went wrong without being an error. Not nil.
	Warn func(error)
}

// Stdio is what a process is given.
type Stdio struct {
	// Streams are stdin, stdout and stderr, which stay the caller's. Nil: the caller's own.
	Streams [3]*os.File
	// ConsoleSocket gets the master of the terminal. Empty: Terminal does.
	ConsoleSocket string
	// Terminal takes the master, where there is no socket for it. Nil: a
	// configuration with a terminal is refused.
	Terminal func(master *os.File) error
	// Preserve is the number of descriptors from 3 on that the process inherits.
	Preserve int
	// PidFile gets the number of the process. Empty: none does.
	PidFile string
}

// teardown bounds the wait for killed processes to leave.
const teardown = time.Minute

// Create builds a container whose process waits for Start. On failure nothing is left.
func (r *Runtime) Create(id, bundle string, o Stdio) (err error) {
	if err := privileged(); err != nil { // before anything that a user may not read
		return err
	}
	if bundle, err = filepath.Abs(bundle); err != nil {
		return fault.Wrap(fault.InvalidBundle, "find bundle", err)
	}
	s, err := Load(bundle)
	if err != nil {
		return err
	}
	return r.CreateAs(id, bundle, s, o)
}

// CreateAs is Create with a configuration in the place of the bundle's own, whose path is
// absolute. The configuration is changed.
func (r *Runtime) CreateAs(id, bundle string, s *specs.Spec, o Stdio) (err error) {
	if err := privileged(); err != nil {
		return err
	}
	if s.Linux == nil {
		return fault.New(fault.InvalidBundle, "read bundle", "is for another platform").WithField("linux")
	}
	noProcess := s.Process == nil
	if noProcess {
		s.Process = &specs.Process{Cwd: "/", Args: []string{"/"}} // never executed: see Start
	}
	kinds, err := resolve(s, bundle)
	if err != nil {
		return err
	}
	if err := checkStdio(s.Process, o); err != nil {
		return err
	}
	c, err := r.make(id)
	if err != nil {
		return err
	}
	defer c.Close()
	c.Bundle, c.Created, c.Config, c.NoProcess = bundle, time.Now().UTC(), *s, noProcess
	if err := r.build(c, kinds, o); err != nil {
		return errors.Join(err, r.undo(c))
	}
	return nil
}

// undo takes away what a failed creation made. While something of its group remains so
// does the directory, by which delete --force finds it.
func (r *Runtime) undo(c *Container) error {
	ctx, cancel := context.WithTimeout(context.Background(), teardown)
	defer cancel()
	if c.Group != nil {
		if err := errors.Join(c.Group.Kill(ctx), c.Group.Remove(ctx)); err != nil {
			return err
		}
	}
	if c.Process != nil {
		r.poststop(c)
	}
	return c.erase()
}

// privileged refuses a caller whose containers this package cannot build.
func privileged() error {
	if os.Geteuid() != 0 {
		return fault.New(fault.Unsupported, "create container", "containers of other users than root are not supported").
			WithHint("Run it as root; capsulectl bundle run runs a bundle as any user.")
	}
	return nil
}

func checkStdio(p *specs.Process, o Stdio) error {
	if p.Terminal && o.ConsoleSocket == "" && o.Terminal == nil {
		return fault.New(fault.InvalidBundle, "create container", "needs a socket for the terminal").WithField("process.terminal").WithHint("Give --console-socket.")
	}
	if !p.Terminal && o.ConsoleSocket != "" {
		return fault.New(fault.InvalidBundle, "create container", "is false, so there is no terminal for the console socket").WithField("process.terminal")
	}
	for fd := 3; fd < 3+o.Preserve; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			return fault.Wrap(fault.InvalidValue, "preserve descriptor "+strconv.Itoa(fd), err).WithField("preserve-fds")
		}
	}
	return nil
}

// facts are those that the plans of a container and of its later processes share.
func (r *Runtime) facts(s *specs.Spec, o Stdio) (f plan.Facts, err error) {
	f.LastCap = lastCapability()
	f.Container.Preserve = o.Preserve
	var processes unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NPROC, &processes); err != nil {
		return f, fault.Wrap(fault.SystemCall, "getrlimit", err)
	}
	f.Container.Processes = processes.Max
	f.Container.Nested = Nested()
	f.Container.NoSetgroups = deniesGroups("self")
	enabled, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	f.Container.AppArmor = err == nil && string(enabled[:min(1, len(enabled))]) == "Y"
	_, err = os.Stat("/sys/fs/selinux/enforce")
	f.Container.SELinux = err == nil
	if f.Container.Permitted, err = permitted(); err != nil {
		return f, err
	}
	f.Filter, f.Container.FilterFlags, err = r.filter(s)
	return f, err
}

// deniesGroups tells whether the groups of a process cannot be changed in its user namespace.
func deniesGroups(pid string) bool {
	text, err := os.ReadFile("/proc/" + pid + "/setgroups")
	return err == nil && string(text) == "deny\n"
}

// build makes the control group and the container's process.
func (r *Runtime) build(c *Container, kinds map[string]plan.Kind, o Stdio) error {
	s := &c.Config
	makeGroup, err := r.grouper(s, c.ID)
	if err != nil {
		return err
	}
	f, err := r.facts(s, o)
	if err != nil {
		return err
	}
	h := hooksOf(s)
	//lint:ignore SA1019 The deprecated hook is still called.
	before := len(h.Prestart) + len(h.CreateRuntime) + len(h.CreateContainer)
	f.BundleDir, f.Kinds, f.Container.NoCommand, f.Container.Hooks = c.Bundle, kinds, c.NoProcess, before > 0
	f.Container.Shared = shared(s)
	if f.Container.Nested {
		if err := boundDevices(s); err != nil {
			return err
		}
	}
	// The record keeps what the configuration says.
	built := *s
	built.Process = withHome(s.Process, accountsOf(s, c.Bundle))
	// Once without effect on anything: what is wrong with the configuration is told first.
	f.Scratch = new(plan.Scratch)
	if _, err := plan.Container(&built, f); err != nil {
		return err
	}
	for _, ns := range s.Linux.Namespaces {
		if ns.Type == specs.UserNamespace {
			if err := boundDevices(s); err != nil {
				return err
			}
		}
	}
	// First, so that who deletes what is left of us knows where the group may be.
	if err := c.begin(); err != nil {
		return err
	}
	group, leave, err := makeGroup()
	if err != nil {
		return err
	}
	defer leave()
	c.Group = group
	if err := c.write(); err != nil {
		return err
	}
	f.Hierarchies = c.Group.Hierarchies()
	gate, err := c.makeGate()
	if err != nil {
		return err
	}
	defer gate.Close()
	l := launcher{r: r, c: c, stdio: o, gate: gate}
	sb, err := l.start(func(tasks int) (*plan.Plan, error) {
		f.Tasks = tasks
		return plan.Container(&built, f)
	})
	if err != nil {
		return err
	}
	if err := r.complete(c, sb, &l); err != nil {
		sb.Abandon()
		return err
	}
	sb.Leave()
	return nil
}

// complete goes along with the container's process until it waits for its start.
func (r *Runtime) complete(c *Container, sb *launch.Sandbox, l *launcher) (err error) {
	if c.Process, err = processOf(sb.Pid); err != nil {
		return err
	}
	if !l.plan.BornLast {
		if err := l.born(sb, nil); err != nil {
			return err
		}
	}
	if err := l.copies(sb); err != nil {
		return err
	}
	if err := l.terminal(sb); err != nil {
		return err
	}
	if err := r.createHooks(c, sb); err != nil {
		return err
	}
	if l.plan.BornLast {
		err = l.arrive(sb)
	} else {
		err = l.listener(sb)
	}
	if err != nil {
		return err
	}
	if err := sb.Held(); err != nil {
		return err
	}
	for _, step := range l.plan.Command {
		c.Steps = append(c.Steps, Step{step.Op.String(), step.Path, step.Field})
	}
	if err := c.write(); err != nil {
		return err
	}
	return l.pidFile(sb.Pid)
}

// born waits for the container's first process and sets what it cannot set itself.
func (l *launcher) born(sb *launch.Sandbox, more func(pid int) error) error {
	return sb.Born(func(pid int) (err error) {
		if l.of == nil {
			if l.c.Process, err = processOf(pid); err != nil {
				return err
			}
		}
		if err = l.adjust(pid); err != nil || more == nil {
			return err
		}
		return more(pid)
	})
}

// createHooks calls the hooks that come while the container stops for them.
func (r *Runtime) createHooks(c *Container, sb *launch.Sandbox) error {
	h := hooksOf(&c.Config)
	//lint:ignore SA1019 The deprecated hook is still called.
	prestart := h.Prestart
	if len(prestart)+len(h.CreateRuntime)+len(h.CreateContainer) == 0 {
		return nil
	}
	if err := sb.Held(); err != nil {
		return err
	}
	for _, kind := range []struct {
		name   string
		list   []specs.Hook
		inside bool
	}{{"prestart", prestart, false}, {"createRuntime", h.CreateRuntime, false}, {"createContainer", h.CreateContainer, true}} {
		var inside func(specs.Hook, []byte) error
		if kind.inside {
			inside = r.insideHook(c, false)
		}
		if err := c.hooks(kind.name, kind.list, specs.StateCreated, sb.Pid, inside); err != nil {
			return err
		}
	}
	return sb.Continue()
}

// makeGate makes the socket at which the container waits.
func (c *Container) makeGate() (*os.File, error) {
	fail := func(op string, err error) error { return fault.Wrap(fault.IO, op, err).WithPath(c.gateFile()) }
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fail("socket", err)
	}
	gate := os.NewFile(uintptr(fd), gateName)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: c.gatePath()}); err != nil {
		gate.Close()
		return nil, fail("bind", err)
	}
	if err := unix.Listen(fd, 1); err != nil {
		gate.Close()
		return nil, fail("listen", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		gate.Close()
		return nil, fail("fstat", err)
	}
	c.Gate, c.GateFD = st.Ino, fd
	return gate, nil
}
