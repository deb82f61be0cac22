package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/api/wire"
)

// Health says how the supervisor is.
type Health struct {
	// Status is "serving", "draining" or "degraded".
	Status string
	// Problems say why it is degraded.
	Problems []string
}

// Options configure a server. Only Supervisor is needed.
type Options struct {
	// Supervisor gives the view that a uid has. It is called once for each call.
	Supervisor func(uid uint32) api.Supervisor
	// Answer waits for the end of an execution of a uid and is its response, encoded and
	// whole. Nil, and a nil answer: the supervisor's Wait is asked, whose response is encoded.
	Answer func(ctx context.Context, uid uint32, id string) []byte
	// Log gets one line for each refused or misbehaving caller and for each
	// execution that is killed because its caller is gone. Nil: slog.Default.
	Log *slog.Logger
	// Allowed says who may connect at all. Nil: root and the server's own uid.
	Allowed func(wire.Credentials) bool
	// Health answers Health. Nil: "serving", or "draining" when Info says so.
	Health func(context.Context) Health
	// MaxConnections bounds all connections, MaxConnectionsPerUID those of one
	// uid that is not the server's own. 0: 1024 and 256.
	MaxConnections, MaxConnectionsPerUID int
	// MaxCalls bounds the open calls of one connection, MaxStreams those of them
	// that are Attach, Logs or Events. 0: 1024 and 128.
	MaxCalls, MaxStreams int
	// MaxStreamsPerUID bounds the streams of all connections of one uid that is
	// not the server's own, MaxUnreadPerUID the bytes of stdin that it has sent and
	// that no command has read. 0: 128 and 32 MiB.
	MaxStreamsPerUID int
	MaxUnreadPerUID  int64
	// MaxCallsPerUID bounds the calls of all connections of such a uid that have no
	// answer yet, MaxRequestsPerUID the bytes of their requests, MaxAnswersPerUID those of
	// large answers that the caller does not take: beyond that they come without output.
	// 0: 2048, 128 MiB and 64 MiB.
	MaxCallsPerUID                      int
	MaxRequestsPerUID, MaxAnswersPerUID int64
	// FrameTimeout bounds the time until a connection's first frame is complete,
	// and that of every frame from its first to its last byte. 0: 30 s.
	FrameTimeout time.Duration
	// TakeoverTimeout is how long an execution with kill_on_disconnect lives
	// without an owner. 0: 10 s.
	TakeoverTimeout time.Duration
}

// Server serves connections until it is closed. Its methods are safe for
// concurrent use.
type Server struct {
	o      Options
	owners *owners
	ctx    context.Context // ends with the server
	stop   context.CancelFunc

	mu        sync.Mutex
	closed    bool
	listeners map[net.Listener]struct{}
	open      map[*connection]struct{}
	accounts  map[uint32]*account
	refusing  int
	work      sync.WaitGroup // connections
}

// closePatience is how long Close waits for handlers, whose context is done.
const closePatience = 5 * time.Second

// New makes a server.
func New(o Options) *Server {
	set := func(n *int, standard int) {
		if *n <= 0 {
			*n = standard
		}
	}
	setBytes := func(n *int64, standard int64) {
		if *n <= 0 {
			*n = standard
		}
	}
	set(&o.MaxConnections, 1024)
	set(&o.MaxConnectionsPerUID, 256)
	set(&o.MaxCalls, 1024)
	set(&o.MaxStreams, 128)
	set(&o.MaxStreamsPerUID, 128)
	set(&o.MaxCallsPerUID, 2048)
	setBytes(&o.MaxUnreadPerUID, 32<<20)
	setBytes(&o.MaxRequestsPerUID, 128<<20)
	setBytes(&o.MaxAnswersPerUID, 64<<20)
	if o.FrameTimeout <= 0 {
		o.FrameTimeout = 30 * time.Second
	}
	if o.TakeoverTimeout <= 0 {
		o.TakeoverTimeout = 10 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Allowed == nil {
		own := uint32(os.Geteuid())
		o.Allowed = func(c wire.Credentials) bool { return c.UID == 0 || c.UID == own }
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Server{
		o: o, ctx: ctx, stop: stop,
		listeners: map[net.Listener]struct{}{}, open: map[*connection]struct{}{}, accounts: map[uint32]*account{},
	}
	s.owners = newOwners(ctx, o.Supervisor, o.Log, o.TakeoverTimeout)
	return s
}

// Serve accepts connections from l until ctx is done or the server is closed,
// which is not an error. It closes l, but no connection: those end with Close.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	if !s.add(l) {
		return l.Close()
	}
	defer s.drop(l)
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	var pause time.Duration
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			s.admit(conn)
			continue
		case ctx.Err() != nil || s.ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fault.Wrap(fault.IO, "accept a connection", err)
		}
		// Out of descriptors, most likely, of which connections that end give
		// some back. Callers wait in the backlog.
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		s.o.Log.Warn("cannot accept a connection", "error", err, "retry", pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		case <-s.ctx.Done():
		}
	}
}

// settlePatience bounds Settle, for callers that do not read.
const settlePatience = 2 * time.Second

// Settle waits for the answers to calls that end by themselves. A Close right after the
// last execution has ended would take from its callers what became of it.
func (s *Server) Settle() {
	late := time.Now().Add(settlePatience)
	for s.unanswered() && time.Now().Before(late) {
		time.Sleep(2 * time.Millisecond) // that an answer is written tells nobody
	}
}

func (s *Server) unanswered() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		if c.unanswered() {
			return true
		}
	}
	return false
}

// Close ends all connections. Executions go on, those with kill_on_disconnect
// too: whoever serves them next has Adopt. It returns when the handlers have,
// or after five seconds.
func (s *Server) Close() error {
	// Before the connections end, so that their end is not taken for the callers'.
	s.owners.close()
	s.stop()
	s.mu.Lock()
	s.closed = true
	for l := range s.listeners {
		_ = l.Close() // it is not used any more
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() { defer close(done); s.work.Wait() }()
	late := time.NewTimer(closePatience)
	defer late.Stop()
	select {
	case <-done:
		return nil
	case <-late.C:
		return fault.New(fault.Timeout, "close the server", "handlers do not return")
	}
}

// Adopt takes over executions from a server that is no more: those among them
// that have kill_on_disconnect, and live, are killed when nobody takes them over
// in time.
func (s *Server) Adopt(executions []api.Summary) {
	for i := range executions {
		if e := &executions[i]; e.KillOnDisconnect && e.Live() {
			s.owners.adopt(e.ID, e.Owner)
		}
	}
}

// Connections is how many are open.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

func (s *Server) add(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.listeners[l] = struct{}{}
	return true
}

func (s *Server) drop(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
	_ = l.Close() // it may be closed already
}
