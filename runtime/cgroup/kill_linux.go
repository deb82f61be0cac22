package cgroup

import (
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec/fault"
)

// Kill sends SIGKILL to every process of the group, those included that are
// being forked. It does not wait for their end: see WaitEmpty. A group that is
// gone already is no error; a group that exists on no hierarchy is E2002.
func (g *Group) Kill() error {
	if len(g.members) == 0 {
		return fault.New(fault.Cgroup, "kill cgroup", "the group is on no hierarchy")
	}
	killed := false
	for _, m := range g.members {
		if m.version != 2 {
			continue
		}
		err := write(m.path+"/cgroup.kill", "1")
		if err == nil || errors.Is(err, unix.ENODEV) || (errors.Is(err, unix.ENOENT) && !exists(m.path)) {
			killed = true
			continue
		}
		// Kernels before 5.14 have no such file.
		if !errors.Is(err, unix.ENOENT) {
			return fault.Wrap(fault.Cgroup, "kill cgroup", err).WithPath(m.path)
		}
	}
	if killed {
		return nil
	}
	return g.killFrozen()
}

// killFrozen stops the group, so that nothing can fork away, signals every
// member and lets it go on into its death; again until nobody is left. Without a
// freezer a race with forks ends by repetition, bounded by the limit on pids.
func (g *Group) killFrozen() error {
	var b buffer
	for round := range 100 {
		if err := g.freeze(true); err != nil {
			return err
		}
		members, err := g.processes(&b)
		if err == nil {
			err = g.signal(&b, members)
		}
		if err := errors.Join(err, g.freeze(false)); err != nil {
			return err
		}
		if len(members) == 0 {
			return nil
		}
		pause(context.Background(), round)
	}
	return fault.New(fault.Cgroup, "kill cgroup", "processes remain after 100 rounds").WithPath(g.members[0].path)
}

// signal kills by pidfd, and only what is still a member once the pidfd
// holds it: a pid that was reused meanwhile belongs to somebody else.
func (g *Group) signal(b *buffer, members []int) error {
	type held struct{ pid, fd int }
	var list []held
	defer func() {
		for _, p := range list {
			unix.Close(p.fd)
		}
	}()
	for _, pid := range members {
		fd, err := unix.PidfdOpen(pid, 0)
		if err == unix.ESRCH || err == unix.EINVAL {
			continue
		}
		if err != nil {
			return fault.Wrap(fault.Cgroup, "pidfd_open", err)
		}
		list = append(list, held{pid, fd})
	}
	still, err := g.processes(b)
	if err != nil {
		return err
	}
	for _, p := range list {
		if !slices.Contains(still, p.pid) {
			continue
		}
		if err := unix.PidfdSendSignal(p.fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
			return fault.Wrap(fault.Cgroup, "pidfd_send_signal", err)
		}
	}
	return nil
}

// freeze stops or continues the group where it has a freezer.
func (g *Group) freeze(on bool) error {
	var path, value string
	if m := g.with(Freezer); m != nil {
		path, value = m.path+"/freezer.state", "THAWED"
		if on {
			value = "FROZEN"
		}
	} else if m := g.v2(); m != nil {
		path, value = m.path+"/cgroup.freeze", "0"
		if on {
			value = "1"
		}
	} else {
		return nil
	}
	// The state need not be reached: a member that is not stopped yet is
	// signalled all the same, and what it forks is frozen at birth.
	if err := write(path, value); err != nil && err != unix.ENOENT && err != unix.ENODEV {
		return fault.Wrap(fault.Cgroup, "write "+value+" to", err).WithPath(path)
	}
	return nil
}

// processes lists the members on all hierarchies, for a child that is being
// attached is on some only.
func (g *Group) processes(b *buffer) ([]int, error) {
	var all []int
	for _, m := range g.members {
		err := walk(m.path, func(dir string) error {
			content, err := b.read(dir + "/cgroup.procs")
			if err == unix.ENOENT || err == unix.ENODEV {
				return nil
			}
			all = append(all, pids(content)...)
			return err
		})
		if err != nil {
			return nil, fault.Wrap(fault.Cgroup, "read the processes of", err).WithPath(m.path)
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// Processes lists the processes of the group by their numbers in this process's
// pid namespace, sorted. Zombies are among them on v1 only.
func (g *Group) Processes() ([]int, error) {
	var b buffer
	return g.processes(&b)
}

// Empty is true when no process is left in the group. Zombies do not count.
func (g *Group) Empty() (bool, error) {
	var b buffer
	if m := g.v2(); m != nil {
		content, err := b.read(m.path + "/cgroup.events")
		if err == unix.ENOENT || err == unix.ENODEV {
			return true, nil
		}
		if err != nil {
			return false, fault.Wrap(fault.Cgroup, "read", err).WithPath(m.path + "/cgroup.events")
		}
		n := keyed(content, "populated")
		return n != nil && *n == 0, nil
	}
	members, err := g.processes(&b)
	return len(members) == 0, err
}

// WaitEmpty waits until no process is left in the group, or until ctx is
// done, whose error it returns then. On v2 the kernel wakes it; v1 has no such
// event and is asked again after 0.1 to 10 ms.
func (g *Group) WaitEmpty(ctx context.Context) error {
	waited := false
	for _, m := range g.members {
		if m.version == 2 {
			if err := waitUnpopulated(ctx, m.path+"/cgroup.events"); err != nil {
				return err
			}
			waited = true
		}
	}
	if waited {
		return nil
	}
	for round := 0; ; round++ {
		empty, err := g.Empty()
		if empty || err != nil {
			return err
		}
		if err := pause(ctx, round); err != nil {
			return err
		}
	}
}

// waitUnpopulated polls cgroup.events: the kernel reports POLLPRI once its
// content differs from what was read last.
func waitUnpopulated(ctx context.Context, path string) error {
	events, err := open(path, unix.O_RDONLY)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return fault.Wrap(fault.Cgroup, "open", err).WithPath(path)
	}
	defer unix.Close(events)
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fault.Wrap(fault.Cgroup, "eventfd", err)
	}
	woken := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(woken)
		// The counter of a fresh eventfd takes an 8-byte one.
		_, _ = unix.Write(stop, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	})
	defer func() {
		if !cancel() {
			<-woken
		}
		unix.Close(stop)
	}()
	var b buffer
	for {
		n, err := unix.Pread(events, b.fixed[:], 0)
		if err == unix.ENODEV {
			return nil
		}
		if err != nil {
			return fault.Wrap(fault.Cgroup, "read", err).WithPath(path)
		}
		if populated := keyed(string(b.fixed[:n]), "populated"); populated != nil && *populated == 0 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		fds := []unix.PollFd{{Fd: int32(events), Events: unix.POLLPRI}, {Fd: int32(stop), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
			return fault.Wrap(fault.Cgroup, "poll", err).WithPath(path)
		}
	}
}

// pause waits 0.1 ms, doubled with each round up to 10 ms.
func pause(ctx context.Context, round int) error {
	timer := time.NewTimer(min(100*time.Microsecond<<min(round, 10), 10*time.Millisecond))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
