package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	rpc "github.com/capsule-run/capsule/runtime/wire"
	"github.com/capsule-run/capsule/shim/shimapi/handover"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	supervisorv1 "github.com/capsule-run/capsule/supervisor/api/v1/plain"
	"github.com/capsule-run/capsule/supervisor/api/wire"
)

// Client is one connection to a supervisor. Its methods are safe for concurrent
// use; calls and streams share the connection without waiting for each other.
type Client struct {
	conn *handover.Receiver
	rpc  *rpc.Conn
	api  supervisorv1.SupervisorClient

	mu    sync.Mutex
	feeds map[*feed]struct{} // stdin that is on its way
}

var _ api.Supervisor = (*Client)(nil)

// Dial connects to the supervisor at address, the path of a unix socket, and
// waits until it answers. Errors: E6004 when nobody does before ctx is done;
// E5004 when the socket is neither root's nor the caller's own, or when the
// supervisor does not want this caller.
func Dial(ctx context.Context, address string) (*Client, error) {
	c, err := Connect(ctx, address)
	if err != nil {
		return nil, err
	}
	if _, err := c.api.Health(ctx, &supervisorv1.HealthRequest{}); err != nil {
		_ = c.Close() // the first error is the one that counts
		err = wire.Fault(ctx, "connect to the supervisor", err)
		if errors.Is(err, &fault.Fault{Code: fault.Cancelled}) {
			err = fault.Wrap(fault.Unreachable, "connect to the supervisor", err).WithPath(address).
				WithHint("It accepts connections but does not answer: look at its log.")
		}
		return nil, err
	}
	return c, nil
}

// Connect is Dial that does not wait for an answer, which saves a round trip: whether
// the supervisor wants this caller, and answers, the first call tells.
func Connect(ctx context.Context, address string) (*Client, error) {
	conn, err := connect(ctx, address)
	if err != nil {
		f := fault.Wrap(fault.Unreachable, "connect to the supervisor", err).WithPath(address)
		f.Err = bare(err)
		return nil, f.WithHint(hint(f.Errno))
	}
	if err := trust(conn, address); err != nil {
		_ = conn.Close() // nothing was sent
		return nil, err
	}
	pipes := handover.NewReceiver(conn.(*net.UnixConn)) // or trust had refused it
	calls := rpc.NewConn(pipes)
	return &Client{conn: pipes, rpc: calls, api: supervisorv1.NewSupervisorClient(calls), feeds: map[*feed]struct{}{}}, nil
}

// maxAddress is what the address of a unix socket holds.
const maxAddress = 107

// connect dials, also where the path is longer than an address may be.
func connect(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	if len(address) > maxAddress {
		dir, err := os.Open(filepath.Dir(address))
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		address = fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(address))
	}
	return d.DialContext(ctx, "unix", address)
}

// bare is the innermost error of those that package net wraps, which repeat the path.
func bare(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

func hint(errno syscall.Errno) string {
	switch errno {
	case syscall.ENOENT:
		return "There is no such socket: start capsuled, check the address (CAPSULE_ADDRESS), or run embedded."
	case syscall.ECONNREFUSED:
		return "Nobody listens on the socket: start capsuled, or run embedded."
	case syscall.EACCES, syscall.EPERM:
		return "This user may not use the socket: ask for access to it, or run embedded."
	}
	return ""
}

// trust refuses a socket that another user offers.
func trust(conn net.Conn, address string) error {
	peer, err := wire.Peer(conn)
	if err != nil {
		return err
	}
	if peer.UID != 0 && peer.UID != uint32(os.Geteuid()) {
		return fault.New(fault.NotAuthorised, "connect to the supervisor", fmt.Sprintf("the socket belongs to user %d", peer.UID)).
			WithPath(address).WithHint("Use a supervisor of root's or of your own.")
	}
	return nil
}

// Close ends the connection, and with it calls that are open. Executions go on,
// but those with KillOnDisconnect that nobody takes over.
func (c *Client) Close() error {
	_ = c.rpc.Close() // it may be lost already
	return nil
}
