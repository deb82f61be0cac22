package container

import (
	"context"
	"errors"
	"io"
	"os"
	"reflect"
	"slices"
	"strconv"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/container/resources"
	"github.com/capsule-run/capsule/runtime/launch"
	"github.com/capsule-run/capsule/spec/fault"
)

func (c *Container) wrong(op string) error {
	return fault.New(fault.InvalidValue, op, "the container is "+string(c.status())).WithField("id")
}

// Start lets a created container run.
func (r *Runtime) Start(id string) error {
	c, err := r.Open(id)
	if err != nil {
		return err
	}
	defer c.Close()
	if c.status() != specs.StateCreated {
		return c.wrong("start")
	}
	if c.NoProcess {
		return fault.New(fault.InvalidBundle, "start", "the configuration has none").WithField("process")
	}
	if list := hooksOf(&c.Config).StartContainer; len(list) > 0 {
		if err := c.hooks("startContainer", list, specs.StateCreated, c.Process.Pid, r.insideHook(c, true)); err != nil {
			return errors.Join(err, c.end())
		}
	}
	if err := c.open(); err != nil {
		return err
	}
	if len(hooksOf(&c.Config).Poststart) > 0 {
		c.Process.executed()
	}
	r.mild(c, "poststart", hooksOf(&c.Config).Poststart, specs.StateRunning, c.Process.Pid)
	return nil
}

// open opens the gate and waits until the command is executed.
func (c *Container) open() error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fault.Wrap(fault.SystemCall, "socket", err)
	}
	line := os.NewFile(uintptr(fd), "start")
	defer line.Close()
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: c.gatePath()}); err != nil {
		return fault.Wrap(fault.MonitorFailed, "start", err).WithPath(c.gateFile())
	}
	if err := c.answer(fd); err != nil {
		return err
	}
	report, err := io.ReadAll(line)
	if err != nil && !errors.Is(err, unix.ECONNRESET) {
		return fault.Wrap(fault.MonitorFailed, "start", err)
	}
	if len(report) == 0 {
		return nil // execve closed it
	}
	step, errno, ok := launch.Failed(report)
	if !ok || step >= len(c.Steps) {
		return fault.New(fault.MonitorFailed, "start", "unknown report")
	}
	s := c.Steps[step]
	code := fault.CommandNotFound
	switch s.Call {
	case "prlimit64":
		code = fault.LimitUnavailable
	case "seccomp":
		code = fault.Seccomp
	case "capset", "prctl":
		code = fault.Capabilities
	case "personality", "sched_setattr", "ioprio_set", "set_mempolicy", "fcntl", "close_range":
		code = fault.SystemCall
	}
	return fault.Wrap(code, s.Call, errno).WithPath(s.Path).WithField(s.Field).WithHint("The container's process failed at this step and has ended.")
}

// answer waits for what the process at the gate says, or its end: what shares its pid namespace and
// has CAP_SYS_PTRACE may have the line and keep it.
func (c *Container) answer(line int) error {
	most := -1
	process, err := c.Process.openMaybe()
	if err != nil {
		return fault.Wrap(fault.MonitorFailed, "pidfd_open", err)
	}
	if process >= 0 {
		defer unix.Close(process)
	} else {
		most = 0 // it has ended, after its descriptors
	}
	fds := []unix.PollFd{{Fd: int32(line), Events: unix.POLLIN}, {Fd: int32(process), Events: unix.POLLIN}}
	if err := polled(fds, most); err != nil {
		return err
	}
	if fds[0].Revents == 0 && polled(fds[:1], 0) == nil && fds[0].Revents == 0 {
		return fault.New(fault.MonitorFailed, "start", "the container's process ended, and another has its line")
	}
	return nil
}

// polled is poll(2), in milliseconds, again when a signal ends it.
func polled(fds []unix.PollFd, most int) error {
	for {
		if _, err := unix.Poll(fds, most); err != unix.EINTR {
			if err != nil {
				return fault.Wrap(fault.MonitorFailed, "poll", err)
			}
			return nil
		}
	}
}

// executed waits until execve has put the command's arguments into its memory, the last it
// does: hooks after the start come after the command is executed, and descriptors are
// closed earlier than that.
func (p *Process) executed() {
	deadline := time.Now().Add(time.Second)
	done := make(chan struct{})
	go func() { // the memory is the command's by then, and reading it may never end
		defer close(done)
		for p.alive() && time.Now().Before(deadline) {
			if text, err := os.ReadFile("/proc/" + strconv.Itoa(p.Pid) + "/cmdline"); err != nil || len(text) > 0 {
				return
			}
			time.Sleep(200 * time.Microsecond)
		}
	}()
	select {
	case <-done:
	case <-time.After(time.Until(deadline)):
	}
}

// end kills everything in the container and waits for its first process to be gone.
func (c *Container) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), teardown)
	defer cancel()
	var all []error
	fd, err := c.Process.openMaybe()
	if err != nil {
		all = append(all, fault.Wrap(fault.MonitorFailed, "kill", err))
	}
	if err == nil && fd >= 0 {
		defer unix.Close(fd)
		if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
			all = append(all, fault.Wrap(fault.MonitorFailed, "kill", err))
		}
	}
	if c.Group != nil {
		all = append(all, c.Group.Kill(ctx))
	}
	if err == nil && fd >= 0 {
		all = append(all, gone(ctx, fd))
	}
	return errors.Join(all...)
}

// openMaybe is open for a process that may be gone or never have been: -1 then.
func (p *Process) openMaybe() (int, error) {
	if p == nil {
		return -1, nil
	}
	fd, err := p.open()
	if err == unix.ESRCH {
		return -1, nil
	}
	return fd, err
}

// gone waits for the end of a process.
func gone(ctx context.Context, pidfd int) error {
	for {
		left := -1
		if t, ok := ctx.Deadline(); ok {
			left = int(max(0, time.Until(t)/time.Millisecond))
		}
		fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, left)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return fault.Wrap(fault.MonitorFailed, "wait for the container's end", err)
		case n == 0:
			return fault.New(fault.MonitorFailed, "wait for the container's end", "it was killed and does not end")
		}
		return nil
	}
}

// Kill sends a signal to the container's first process, or to all of its processes. It
// waits for no other call: one that does not end may wait for just this.
func (r *Runtime) Kill(id string, sig unix.Signal, all bool) error {
	c, err := r.Peek(id)
	if err != nil {
		return err
	}
	if all && c.Group != nil && c.Group.Nowhere() {
		// As root of a user namespace may have it: nothing lists the container's processes.
		if sig != unix.SIGKILL || !c.leads() {
			return fault.New(fault.Cgroup, "kill", "the container has no control group, which would list its processes").WithField("all").
				WithHint("Without --all the signal goes to the container's first process.")
		}
		all = false // the first one of a pid namespace takes all others along
	}
	switch c.status() {
	case specs.StateCreated, specs.StateRunning, statePaused:
	default:
		if all && c.Group != nil {
			break // what the first process left behind, where it was no namespace's
		}
		return c.wrong("kill")
	}
	ctx, cancel := context.WithTimeout(context.Background(), teardown)
	defer cancel()
	if all {
		if sig == unix.SIGKILL {
			return c.Group.Kill(ctx)
		}
		return c.Group.Signal(sig)
	}
	fd, err := c.Process.open()
	if err == nil {
		err = unix.PidfdSendSignal(fd, sig, nil, 0)
		unix.Close(fd)
	}
	if err != nil {
		return fault.Wrap(fault.MonitorFailed, "kill", err).WithField("id")
	}
	if sig == unix.SIGKILL && c.Group != nil && c.Group.Frozen() {
		return c.Group.Freeze(ctx, false)
	}
	return nil
}

// leads tells whether the container's first process is that of a pid namespace.
func (c *Container) leads() bool {
	return c.Config.Linux != nil && slices.Contains(c.Config.Linux.Namespaces, specs.LinuxNamespace{Type: specs.PIDNamespace})
}

// Delete takes a container away. With force it is killed first, and one that does not
// exist is no error.
func (r *Runtime) Delete(id string, force bool) error {
	if force {
		// Before the lock: a call that waits for a process of the container may have it. One that
		// is created has only its group yet.
		if c, err := r.Glance(id); err == nil && (c.Process.alive() || c.Process == nil && c.Group != nil) {
			if err := c.end(); err != nil {
				return err
			}
		}
	}
	c, err := r.Open(id)
	if err != nil {
		if force && errors.Is(err, &fault.Fault{Code: fault.NotFound}) {
			return nil
		}
		var unreadable *fault.Fault
		if force && errors.As(err, &unreadable) && unreadable.Code == fault.StateUnreadable {
			return r.deleteUnreadable(id)
		}
		return err
	}
	defer c.Close()
	if c.status() != specs.StateStopped && !force {
		return c.wrong("delete")
	}
	if err := c.end(); err != nil {
		return err
	}
	if c.Group != nil {
		ctx, cancel := context.WithTimeout(context.Background(), teardown)
		defer cancel()
		if err := c.Group.Remove(ctx); err != nil {
			return err
		}
	}
	if c.Group == nil && c.Config.Linux != nil {
		if at, err := r.cgroupPath(&c.Config, c.ID); err == nil {
			resources.Sweep(at)
		}
	}
	// The directory goes before the hooks: what they do must not be done twice.
	if err := c.erase(); err != nil {
		return err
	}
	if c.Process != nil {
		r.poststop(c)
	}
	return nil
}

// deleteUnreadable takes away a container whose record or configuration is damaged. Without
// the record all that is known of it is its directory, and the group where it would be by default.
func (r *Runtime) deleteUnreadable(id string) error {
	c := &Container{store: &r.Store, dir: r.Root + "/" + id}
	c.ID = id
	if err := c.take(); err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), teardown)
	defer cancel()
	if there, _ := c.readRecord(); there { // why it cannot be read was told to who asked before
		if err := c.end(); err != nil {
			return err
		}
	} else {
		r.Warn(fault.New(fault.StateUnreadable, "delete container", "its record is damaged: a control group that its configuration named remains").WithPath(c.dir))
	}
	if c.Group == nil {
		c.Group = resources.Existing(r.defaultGroup(id))
	}
	if err := errors.Join(c.Group.Kill(ctx), c.Group.Remove(ctx)); err != nil {
		return err
	}
	return c.erase()
}

func (r *Runtime) poststop(c *Container) {
	r.mild(c, "poststop", hooksOf(&c.Config).Poststop, specs.StateStopped, 0)
}

// mild calls hooks whose failure is only worth a warning.
func (r *Runtime) mild(c *Container, kind string, list []specs.Hook, status specs.ContainerState, pid int) {
	for _, h := range list {
		if err := c.hooks(kind, []specs.Hook{h}, status, pid, nil); err != nil {
			r.Warn(err)
		}
	}
}

// Pause stops every process of a running container, or lets a paused one go on.
func (r *Runtime) Pause(id string, on bool) error {
	c, err := r.Open(id)
	if err != nil {
		return err
	}
	defer c.Close()
	st := c.status()
	if on && st != specs.StateRunning && st != specs.StateCreated || !on && st != statePaused {
		if on {
			return c.wrong("pause")
		}
		return c.wrong("resume")
	}
	ctx, cancel := context.WithTimeout(context.Background(), teardown)
	defer cancel()
	return c.Group.Freeze(ctx, on)
}

// Update sets other limits.
func (r *Runtime) Update(id string, to *specs.LinuxResources) error {
	c, err := r.Open(id)
	if err != nil {
		return err
	}
	defer c.Close()
	if c.Group == nil || !c.Process.alive() {
		return c.wrong("update")
	}
	// Callers hand the configuration's own back with what they change.
	if have := c.Config.Linux.Resources; to.Devices != nil && (have == nil || !reflect.DeepEqual(to.Devices, have.Devices)) {
		return fault.New(fault.Unsupported, "update", "device rules cannot be changed").WithField("linux.resources.devices")
	}
	return c.Group.Set(to)
}

// Processes are the pids of a container.
func (r *Runtime) Processes(id string) ([]int, error) {
	c, err := r.Glance(id)
	if err != nil {
		return nil, err
	}
	if c.Group == nil {
		return nil, nil
	}
	return c.Group.Processes()
}

// Pid is the number of the container's first process, for a caller that is its parent.
func (r *Runtime) Pid(id string) (int, error) {
	c, err := r.Glance(id)
	if err != nil {
		return 0, err
	}
	if c.Process == nil {
		return 0, fault.New(fault.InvalidValue, "look at container", strconv.Quote(id)+" has no process")
	}
	return c.Process.Pid, nil
}
