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
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"

	"github.com/capsule-run/capsule/shim/shimapi/handover"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	supervisorv1 "github.com/capsule-run/capsule/supervisor/api/v1"
	"github.com/capsule-run/capsule/supervisor/api/wire"
)

// Client is one connection to a supervisor. Its methods are safe for concurrent
// use; calls and streams share the connection without waiting for each other.
type Client struct {
	conn *handover.Receiver
	rpc  *ttrpc.Client
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
	rpc := ttrpc.NewClient(pipes)
	c := &Client{conn: pipes, rpc: rpc, api: supervisorv1.NewSupervisorClient(rpc), feeds: map[*feed]struct{}{}}
	if _, err := c.api.Health(ctx, &supervisorv1.HealthRequest{}); err != nil {
		_ = rpc.Close() // the first error is the one that counts
		err = wire.Fault(ctx, "connect to the supervisor", err)
		if errors.Is(err, &fault.Fault{Code: fault.Cancelled}) {
			err = fault.Wrap(fault.Unreachable, "connect to the supervisor", err).WithPath(address).
				WithHint("It accepts connections but does not answer: look at its log.")
		}
		return nil, err
	}
	return c, nil
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
	// ttrpc complains on stderr of what is under way when it is told itself.
	_ = c.conn.Close() // it may be closed already
	ctx, cancel := context.WithTimeout(context.Background(), closePatience)
	defer cancel()
	_ = c.rpc.UserOnCloseWait(ctx) // an error says that it took long
	_ = c.rpc.Close()              // gives none
	return nil
}

// closePatience is how long Close waits for streams to notice.
const closePatience = 2 * time.Second

// invoke makes a call that may take long. Unlike ttrpc's own it lets the
// supervisor know when ctx ends it.
func (c *Client) invoke(ctx context.Context, method string, request, response proto.Message) error {
	if err := ctx.Err(); err != nil {
		return wire.Fault(ctx, method, err)
	}
	s, err := c.rpc.NewStream(context.Background(), &ttrpc.StreamDesc{StreamingClient: true}, wire.Service, method, request)
	if err != nil {
		return wire.Fault(ctx, method, err)
	}
	answer := response.ProtoReflect().New().Interface()
	done := make(chan error, 1)
	// After a cancelled call it takes the answer off ttrpc's hands.
	go func() { done <- s.RecvMsg(answer) }()
	select {
	case err := <-done:
		if err != nil {
			return wire.Fault(ctx, method, err)
		}
		proto.Merge(response, answer)
		return nil
	case <-ctx.Done():
		_ = s.CloseSend() // fails when the connection is lost, which needs no cancelling
		return wire.Fault(ctx, method, ctx.Err())
	}
}

// bounded refuses a request that ttrpc could not send.
func bounded(op string, m proto.Message) error {
	if n := proto.Size(m); n > wire.MaxMessage-1024 {
		return fault.New(fault.OutOfRange, op, fmt.Sprintf("the request has %d bytes, a message holds 4 MiB", n))
	}
	return nil
}
