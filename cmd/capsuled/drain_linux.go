package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	rpc "github.com/capsule-run/capsule/runtime/wire"
	"github.com/capsule-run/capsule/spec/fault"
	supervisorv1 "github.com/capsule-run/capsule/supervisor/api/v1/plain"
	"github.com/capsule-run/capsule/supervisor/api/wire"
)

// dialTime is how long a daemon may take to answer; one that recovers answers
// when it is done.
const dialTime = 30 * time.Second

// drain lets the capsuled that serves address end after the executions that
// run, and waits for its end. A done ctx ends the wait, not the draining.
func drain(ctx context.Context, address string) error {
	pidfd, pid, err := running(ctx, address)
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	if err := unix.PidfdSendSignal(pidfd, unix.SIGUSR1, nil, 0); err != nil {
		return fault.Wrap(fault.SystemCall, fmt.Sprintf("signal process %d", pid), err)
	}
	// A pipe that ends with ctx wakes the poll.
	var wake [2]int
	if err := unix.Pipe2(wake[:], unix.O_CLOEXEC); err != nil {
		return fault.Wrap(fault.SystemCall, "pipe", err)
	}
	defer unix.Close(wake[0])
	written := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(written)
		_ = unix.Close(wake[1]) // the reader sees its end
	})
	defer func() {
		if stop() {
			_ = unix.Close(wake[1])
		} else {
			<-written
		}
	}()
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}, {Fd: int32(wake[0])}}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return fault.Wrap(fault.SystemCall, "poll", err)
		case fds[0].Revents != 0:
			return nil
		case ctx.Err() != nil:
			return fault.Wrap(fault.Cancelled, "wait for the end of capsuled", ctx.Err()).
				WithHint("It goes on draining. Run capsuled --drain again to wait for it.")
		}
	}
}

// running is a descriptor of the process that serves address.
func running(ctx context.Context, address string) (pidfd, pid int, err error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	// A socket that systemd made tells systemd's process until capsuled serves
	// it, which it does when somebody connects.
	for range 2 {
		pidfd, pid, err = identify(ctx, address)
		if !errors.Is(err, errForeign) {
			return pidfd, pid, err
		}
	}
	return -1, 0, fault.Wrap(fault.Unreachable, "find the running capsuled", err).WithPath(address)
}

// errForeign is that the socket's credentials are not of a capsuled.
var errForeign = errors.New("the socket tells of a process that is not to be signalled")

// identify asks who listens, takes hold of that process, and makes sure that it
// still serves then: its number was not another's.
func identify(ctx context.Context, address string) (pidfd, pid int, err error) {
	const op = "find the running capsuled"
	hint := "No capsuled runs there. Give the --address or the --state of the one to drain."
	conn, err := dial(ctx, address)
	if err != nil {
		return -1, 0, fault.Wrap(fault.Unreachable, op, err).WithPath(address).WithHint(hint)
	}
	calls := rpc.NewConn(conn)
	defer calls.Close() // and the connection; nothing is under way
	peer, err := wire.Peer(conn)
	if err != nil {
		return -1, 0, err
	}
	pidfd = -1
	if peer.Pid > 1 {
		if pidfd, err = unix.PidfdOpen(peer.Pid, 0); err != nil {
			return -1, 0, fault.Wrap(fault.SystemCall, fmt.Sprintf("pidfd_open of process %d", peer.Pid), err)
		}
	}
	if _, err := supervisorv1.NewSupervisorClient(calls).Health(ctx, &supervisorv1.HealthRequest{}); err != nil {
		if pidfd >= 0 {
			_ = unix.Close(pidfd)
		}
		return -1, 0, fault.Wrap(fault.Unreachable, op, wire.Fault(ctx, op, err)).WithPath(address).WithHint(hint)
	}
	if pidfd < 0 {
		return -1, 0, errForeign
	}
	return pidfd, peer.Pid, nil
}
