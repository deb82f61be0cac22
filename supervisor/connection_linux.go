package supervisor

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/runtime/wire"
	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/shim/shimapi/handover"
	shimv1 "github.com/capsule-run/capsule/shim/shimapi/v1/plain"
	"github.com/capsule-run/capsule/spec/fault"
)

// connection is one to the shim of a detached execution.
type connection struct {
	shim   shimv1.ShimClient
	client *wire.Conn
	pipes  *handover.Receiver

	mu      sync.Mutex
	users   int           // guarded by mu
	retired bool          // nobody begins to use it; guarded by mu
	unused  chan struct{} // closed when it is retired and nobody uses it
}

// newConnection takes over conn.
func newConnection(conn *net.UnixConn) *connection {
	c := &connection{pipes: handover.NewReceiver(conn), unused: make(chan struct{})}
	c.client = wire.NewConn(c.pipes)
	c.shim = shimv1.NewShimClient(c.client)
	return c
}

func (c *connection) Close() error { return c.client.Close() }

// acquire begins a use; false: the connection is retired.
func (c *connection) acquire() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.retired {
		return false
	}
	c.users++
	return true
}

func (c *connection) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.users--; c.users == 0 && c.retired {
		close(c.unused)
	}
}

// retire lets nobody begin a use. It is called once.
func (c *connection) retire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.retired = true; c.users == 0 {
		close(c.unused)
	}
}

// open tells whether calls have a chance.
func (c *connection) open() bool {
	select {
	case <-c.client.Ended():
		return false
	default:
		return true
	}
}

// dial connects to the socket of a shim that runs.
func dial(dir layout.Dir) (*connection, error) {
	// Through the descriptor: a socket address holds 108 bytes, a path more.
	fd, err := unix.Open(string(dir), unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fault.Wrap(fault.ShimLost, "connect to the shim", err)
	}
	defer unix.Close(fd)
	conn, err := net.Dial("unix", layout.InDirectory(fd).Socket())
	if err != nil {
		return nil, fault.Wrap(fault.ShimLost, "connect to the shim", err)
	}
	return newConnection(conn.(*net.UnixConn)), nil // it was dialled as such
}

// answerPatience is how long a shim that lives may take to offer its socket. It
// does so when its command runs.
const answerPatience = 30 * time.Second

// connected calls f with the API of the shim of a living execution, once it is
// connected.
func (s *Supervisor) connected(ctx context.Context, e *entry, f func(shimv1.ShimClient) error) error {
	return s.onConnection(ctx, e, func(c *connection) error { return f(c.shim) })
}

// onConnection is connected for one who needs the connection.
func (s *Supervisor) onConnection(ctx context.Context, e *entry, f func(*connection) error) error {
	if m := s.minder(e.summary.ID); m != nil {
		select {
		case <-m.started:
		case <-ctx.Done():
			return ctx.Err()
		}
		if c := m.connection(); c != nil && c.acquire() {
			defer c.release()
			return f(c)
		}
	}
	late := time.After(answerPatience)
	for pause := shortPause; ; pause = min(2*pause, longPause) {
		c, err := dial(e.dir)
		if err == nil {
			defer c.Close()
			return f(c)
		}
		if !alive(e.dir) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		case <-late:
			return err
		}
	}
}

// alive tells whether the shim of an execution lives and has no result yet.
func alive(dir layout.Dir) bool {
	if _, err := os.Lstat(dir.Result()); err == nil {
		return false
	}
	lock, err := lockDead(dir, false)
	if err == nil {
		lock.Close()
	}
	return errors.Is(err, errAlive)
}
