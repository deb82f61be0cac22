package wire

import (
	"bufio"
	"context"
	"errors"
	"io"
	"math"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec/fault"
)

// Server answers calls. Its fields are set before the first connection.
type Server struct {
	// Call answers a call that has one message either way. An error that is no *Status
	// has the code Unknown. ctx ends with the connection, and with the caller's patience.
	Call func(ctx context.Context, service, method string, request Message) (Message, error)
	// Stream is what conducts a call of several messages; nil: the method has one. Its
	// error is the call's, as with Call.
	Stream func(service, method string) func(context.Context, *Stream) error

	mu       sync.Mutex
	visited  bool
	ending   bool
	sessions map[*session]bool
	quiet    chan struct{} // closed when ending and no session is left
}

// session is one connection. What is guarded is so by the server's mu.
type session struct {
	server *Server
	conn   io.ReadWriteCloser
	ctx    context.Context
	active int // calls that are not answered; guarded

	writing sync.Mutex
	buf     []byte // of a frame that is written; guarded by writing

	streams sync.Map // calls by number: a *Stream, or what cancels one of one message
}

// Serve answers all who connect to a listening unix socket and are of our user. It
// returns when the socket is closed.
func (s *Server) Serve(listener *os.File) error {
	raw, err := listener.SyscallConn()
	if err != nil {
		return fault.Wrap(fault.SystemCall, "serve", err)
	}
	for {
		var fd int
		var bad error
		if err := raw.Read(func(l uintptr) bool {
			fd, _, bad = unix.Accept4(int(l), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			return bad != unix.EAGAIN
		}); err != nil {
			return nil // closed: it has no deadline
		}
		switch bad {
		case nil:
		case unix.ECONNABORTED, unix.EINTR:
			continue // of a connection that is gone already
		default:
			time.Sleep(100 * time.Millisecond) // until somebody has closed something, in general
			continue
		}
		s.mu.Lock()
		s.visited = true
		s.mu.Unlock()
		conn := os.NewFile(uintptr(fd), "client")
		peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil || int(peer.Uid) != os.Geteuid() {
			conn.Close()
			continue
		}
		go s.Converse(conn)
	}
}

// Visited tells whether anybody has connected to the socket.
func (s *Server) Visited() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.visited
}

// Converse answers the calls of one client until it goes, or we end, and closes the
// connection.
func (s *Server) Converse(conn io.ReadWriteCloser) {
	ctx, cancel := context.WithCancel(context.Background())
	c := &session{server: s, conn: conn, ctx: ctx}
	defer cancel()
	defer conn.Close()
	if !s.enter(c) {
		return
	}
	defer s.leave(c)
	c.read()
}

func (s *Server) enter(c *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		return false
	}
	if s.sessions == nil {
		s.sessions = map[*session]bool{}
	}
	s.sessions[c] = true
	return true
}

func (s *Server) leave(c *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, c)
	if s.ending && len(s.sessions) == 0 {
		close(s.quiet)
	}
}

// Shutdown lets nobody connect any more, and ends each connection once its calls are answered, or
// when ctx ends.
func (s *Server) Shutdown(ctx context.Context) {
	s.mu.Lock()
	if !s.ending {
		s.ending, s.quiet = true, make(chan struct{})
		if len(s.sessions) == 0 {
			close(s.quiet)
		}
	}
	for c := range s.sessions {
		if c.active == 0 {
			c.conn.Close()
		}
	}
	s.mu.Unlock()
	select {
	case <-s.quiet:
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		for c := range s.sessions {
			c.conn.Close()
		}
	}
}

// begin and done count the calls of a connection.
func (c *session) begin() {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	c.active++
}

func (c *session) done() {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	if c.active--; c.active == 0 && c.server.ending {
		c.conn.Close()
	}
}

// read takes frames until the connection ends. What follows one that is malformed cannot be
// told apart from what is wrong, so that it ends there.
func (c *session) read() {
	reader := bufio.NewReaderSize(c.conn, 1024)
	for last := uint32(0); ; {
		f, err := readFrame(reader)
		if err != nil {
			return
		}
		switch {
		case f.kind == typeData:
			c.deliver(f)
		case f.kind != typeRequest:
			return
		case f.stream%2 != 1 || f.stream <= last:
			c.answer(f.stream, nil, &Status{Code: InvalidArgument, Text: "the number of a call is odd and higher than those before"})
		default:
			last = f.stream
			c.start(f)
		}
	}
}

// start begins a call.
func (c *session) start(f frame) {
	service, method, request := f.payload.String(1), f.payload.String(2), f.payload.Message(3)
	if err := request.Check(); err != nil {
		c.answer(f.stream, nil, &Status{Code: InvalidArgument, Text: err.Error()})
		return
	}
	ctx, cancel := c.ctx, context.CancelFunc(func() {})
	if patience := f.payload.Uint(4); patience > 0 && patience <= math.MaxInt64 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(patience))
	}
	c.begin()
	if c.server.Stream != nil {
		if conduct := c.server.Stream(service, method); conduct != nil {
			s := &Stream{session: c, number: f.stream, ctx: ctx, in: make(chan Message, streamQueue)}
			if f.flags&flagRemoteClosed != 0 {
				s.end()
			}
			c.streams.Store(f.stream, s)
			go func() {
				defer c.done()
				defer cancel()
				err := conduct(ctx, s)
				c.streams.Delete(f.stream)
				c.finish(f.stream, err)
			}()
			return
		}
	}
	ctx, left := context.WithCancel(ctx)
	c.streams.Store(f.stream, left)
	go func() {
		defer c.done()
		defer cancel()
		defer left()
		answer, err := c.server.Call(ctx, service, method, request)
		c.streams.Delete(f.stream)
		c.answer(f.stream, answer, err)
	}()
}

// answer sends the response of a call.
func (c *session) answer(number uint32, result Message, err error) {
	if err == nil && len(result) > largest-headerSize {
		err = &Status{Code: Unknown, Text: "the answer is too large"}
	}
	if err == nil {
		_ = c.send(number, typeResponse, 0, Message(nil).Open(2, len(result)), result) // the reader sees that it is gone
		return
	}
	_ = c.send(number, typeResponse, 0, Message(nil).Put(1, statusOf(err)))
}

// finish ends a call of several messages.
func (c *session) finish(number uint32, err error) {
	if err != nil {
		c.answer(number, nil, err)
		return
	}
	_ = c.send(number, typeData, flagRemoteClosed|flagNoData)
}

func statusOf(err error) Message {
	code := Unknown
	var status *Status
	switch {
	case errors.As(err, &status):
		code = status.Code
	case errors.Is(err, context.Canceled):
		code = Canceled
	case errors.Is(err, context.DeadlineExceeded):
		code = DeadlineExceeded
	}
	text := err.Error()
	// A text that is not UTF-8, or too long for a frame, would take the code with it.
	text = strings.ToValidUTF8(text[:min(len(text), longestText)], "\uFFFD")
	return Message(nil).PutUint(1, uint64(code)).PutString(2, text)
}

// longestText is what is told of an error, in bytes.
const longestText = 64 << 10

// send writes a frame in one piece.
func (c *session) send(number uint32, kind, flags byte, parts ...[]byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.buf = appendFrame(c.buf[:0], number, kind, flags, parts...)
	_, err := c.conn.Write(c.buf)
	if cap(c.buf) > keptBuffer {
		c.buf = nil
	}
	return err
}
