package server

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/capsule-run/capsule/shim/shimapi/handover"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	"github.com/capsule-run/capsule/supervisor/api/wire"
)

// connection is one caller's connection.
type connection struct {
	s      *Server
	caller wire.Credentials
	pipes  *handover.Sender // beneath the gate
	gate   *gate

	account *account // set by enter

	gone bool // owners': the connection has ended

	mu       sync.Mutex
	ending   bool
	calls    int
	streams  int
	follows  int // calls of Events, which need not end by themselves
	handlers sync.WaitGroup
}

// supervisor is the caller's view.
func (c *connection) supervisor() api.Supervisor { return c.s.o.Supervisor(c.caller.UID) }

// admit serves a connection, or tells its caller why not.
func (s *Server) admit(conn net.Conn) {
	caller, err := wire.Peer(conn)
	if err != nil {
		s.o.Log.Warn("refused a connection", "error", err)
		_ = conn.Close() // it is not wanted
		return
	}
	if !s.o.Allowed(caller) {
		s.refuse(conn, caller, fault.New(fault.NotAuthorised, "connect", "this user may not use the supervisor").
			WithHint("Ask its administrator for access to the socket, or run embedded."))
		return
	}
	pipes := handover.NewSender(conn.(*net.UnixConn)) // or wire.Peer had refused it
	c := &connection{s: s, caller: caller, pipes: pipes, gate: newGate(pipes, 2*s.o.MaxCalls, s.o.FrameTimeout)}
	if !s.enter(c) {
		s.refuse(conn, caller, fault.New(fault.TooManyExecutions, "connect", "too many connections are open").
			WithHint("Use one connection for many calls, and close those that are not used."))
		return
	}
	go c.serve()
}

// enter counts a connection in.
func (s *Server) enter(c *connection) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.account(c.caller.UID)
	most := s.o.MaxConnections
	if !a.own {
		most -= most / 8 // so that the administrator gets in
	}
	if s.closed || len(s.open) >= most || !a.own && a.connections >= a.mostConnection {
		if a.connections == 0 {
			delete(s.accounts, c.caller.UID)
		}
		return false
	}
	s.open[c] = struct{}{}
	c.account, c.gate.account = a, a
	a.connections++
	s.work.Add(1)
	return true
}

// leave counts it out.
func (s *Server) leave(c *connection) {
	s.mu.Lock()
	delete(s.open, c)
	if c.account.connections--; c.account.connections == 0 {
		delete(s.accounts, c.caller.UID)
	}
	s.mu.Unlock()
	s.work.Done()
}

// serve runs the connection to its end.
func (c *connection) serve() {
	defer c.s.leave(c)
	srv, err := ttrpc.NewServer()
	if err != nil {
		c.gate.end(err)
		return
	}
	srv.RegisterService(wire.Service, c.service())
	defer context.AfterFunc(c.s.ctx, func() { c.gate.end(nil) })()
	_ = c.gate.SetReadDeadline(time.Now().Add(c.s.o.FrameTimeout)) // a lost connection is found by the read
	// Serve returns when the gate says that the connection is over.
	_ = srv.Serve(quiet(c.s.ctx), &single{gate: c.gate})
	_ = srv.Close() // its one connection is closed
	c.s.owners.disconnected(c)
	c.mu.Lock()
	c.ending = true
	c.mu.Unlock()
	c.handlers.Wait()
	if why := c.gate.reason(); why != nil && c.s.ctx.Err() == nil {
		c.s.o.Log.Info("ended a connection", "uid", c.caller.UID, "pid", c.caller.Pid, "error", why)
	}
}

// unanswered tells whether a call that ends by itself has no answer on the wire yet.
func (c *connection) unanswered() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	return len(c.gate.open) > c.follows
}

// following counts a call of Events in, or out with -1.
func (c *connection) following(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.follows += n
}

// single is a listener that accepts one connection, which exists already.
type single struct {
	gate *gate
	once sync.Once
}

// Accept implements net.Listener. The second call waits for the connection's end.
func (s *single) Accept() (net.Conn, error) {
	var conn net.Conn
	s.once.Do(func() { conn = s.gate })
	if conn != nil {
		return conn, nil
	}
	<-s.gate.ended
	return nil, net.ErrClosed
}

// Close implements net.Listener.
func (s *single) Close() error { return nil }

// Addr implements net.Listener.
func (s *single) Addr() net.Addr { return s.gate.LocalAddr() }

// How much is done for callers who are not served.
const (
	maxRefusing    = 32
	refusePatience = time.Second
)

// refuse answers the first call of a connection with a fault and closes it.
func (s *Server) refuse(conn net.Conn, caller wire.Credentials, f *fault.Fault) {
	s.mu.Lock()
	busy := s.refusing >= maxRefusing || s.closed
	if !busy {
		s.refusing++
		s.work.Add(1)
	}
	s.mu.Unlock()
	if busy {
		_ = conn.Close() // even an answer would be too much
		return
	}
	s.o.Log.Warn("refused a connection", "uid", caller.UID, "pid", caller.Pid, "error", f)
	go func() {
		defer func() {
			_ = conn.Close() // the answer is sent, or cannot be
			s.mu.Lock()
			s.refusing--
			s.mu.Unlock()
			s.work.Done()
		}()
		_ = conn.SetDeadline(time.Now().Add(refusePatience)) // the read fails in its place
		var header [headerSize]byte
		if _, err := io.ReadFull(conn, header[:]); err != nil {
			return
		}
		answer, err := refusal(header, f)
		if err != nil {
			return
		}
		if _, err := conn.Write(answer); err != nil {
			return
		}
		// The caller closes first: the kernel may drop an answer when something is
		// unread on this side, and ttrpc's client one that the end overtakes.
		_, _ = io.CopyN(io.Discard, conn, wire.MaxMessage) // as far as it comes
	}()
}

// refusal is the frame that answers the request with that header.
func refusal(header [headerSize]byte, f *fault.Fault) ([]byte, error) {
	st, ok := status.FromError(statusOf(f))
	if !ok {
		return nil, errors.New("a fault is always a status")
	}
	message, err := proto.Marshal(&ttrpc.Response{Status: st.Proto()})
	if err != nil {
		return nil, err
	}
	frame := binary.BigEndian.AppendUint32(nil, uint32(len(message)))
	frame = append(frame, header[4:8]...)
	frame = append(frame, typeResponse, 0)
	return append(frame, message...), nil
}
