package wire

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

// ErrClosed is the error of calls whose connection has ended.
var ErrClosed = errors.New("the connection has ended")

// ErrFlood is the error of a call whose answers nobody takes, or of which more came than a
// service may send ahead.
var ErrFlood = errors.New("more messages came than may wait")

// tooLarge is the error of a message that no frame holds. Nothing of it has been sent.
func tooLarge(size int) error {
	return &Status{Code: ResourceExhausted, Text: fmt.Sprintf("the request has %d bytes, a message holds 4 MiB", size)}
}

// Conn is a client's connection. Calls go on beside one another; no call waits for the
// messages of another to be taken.
type Conn struct {
	conn  io.ReadWriteCloser
	ended chan struct{}

	writing chan struct{} // one element: whose turn it is to write
	buf     []byte        // of a frame that is written; guarded by writing
	last    uint32        // the number of the newest call; guarded by writing

	mu    sync.Mutex
	calls map[uint32]*Call // that have not ended; nil: the connection has. Guarded by mu
}

// NewConn takes over a connection to a service and reads from it until it ends.
func NewConn(conn io.ReadWriteCloser) *Conn {
	c := &Conn{conn: conn, ended: make(chan struct{}), writing: make(chan struct{}, 1), calls: map[uint32]*Call{}}
	go c.read()
	return c
}

// Close ends the connection and all calls, and returns when they have.
func (c *Conn) Close() error {
	err := c.conn.Close()
	<-c.ended
	return err
}

// Ended is closed when the connection and all of its calls have ended.
func (c *Conn) Ended() <-chan struct{} { return c.ended }

// Call is one call under way.
type Call struct {
	conn   *Conn
	number uint32
	ctx    context.Context

	in   chan Message // closed at the end
	err  error        // why it ended, nil when it did well; set before in is closed
	over bool         // in is closed; guarded by conn.mu
	torn bool         // by us: the service goes on, and is told by CloseSend; guarded by conn.mu

	mu     sync.Mutex
	closed bool // nothing more is sent; guarded by mu
}

// Open begins a call of several messages. Without a first one none is sent: Send does. As
// many messages of the service may wait to be taken. ctx ends Recv, and what waits for a
// service that reads nothing.
func (c *Conn) Open(ctx context.Context, service, method string, first Message, waiting int) (*Call, error) {
	s, err := c.open(ctx, service, method, first, waiting)
	if err == nil && first != nil && len(first) == 0 {
		err = s.Send(first) // ttrpc does not see one that is empty in a request
	}
	return s, err
}

func (c *Conn) open(ctx context.Context, service, method string, request Message, waiting int) (*Call, error) {
	head := Message(make([]byte, 0, 64+len(service)+len(method))).PutString(1, service).PutString(2, method)
	if at, ok := ctx.Deadline(); ok {
		head = head.PutUint(4, uint64(max(time.Until(at), 1))) // for the service, which gives up by itself
	}
	if request != nil {
		head = head.Open(3, len(request))
	}
	if len(head)+len(request) > largest {
		return nil, tooLarge(len(request))
	}
	s := &Call{conn: c, ctx: ctx, in: make(chan Message, waiting)}
	if err := c.turn(ctx); err != nil {
		return nil, err
	}
	defer c.pass()
	c.last += 2 // odd numbers, in their order on the wire
	s.number = c.last - 1
	c.mu.Lock()
	if c.calls == nil {
		c.mu.Unlock()
		return nil, ErrClosed
	}
	c.calls[s.number] = s
	c.mu.Unlock()
	if err := c.write(ctx, s.number, typeRequest, flagRemoteOpen, head, request); err != nil {
		s.forget()
		return nil, err
	}
	return s, nil
}

// turn waits for the turn to write, unless ctx ends before. A turn that is free is taken
// in any case.
func (c *Conn) turn(ctx context.Context) error {
	select {
	case c.writing <- struct{}{}:
		return nil
	default:
	}
	select {
	case c.writing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pass ends a turn.
func (c *Conn) pass() { <-c.writing }

// write sends a frame in one piece. The caller has the turn. An error is that the deadline of
// ctx came before the service took any of it; every other failure is told by the end of the
// connection, behind what the service had to say before it closed its end.
func (c *Conn) write(ctx context.Context, number uint32, kind, flags byte, parts ...[]byte) error {
	if bounded, ok := c.conn.(interface{ SetWriteDeadline(time.Time) error }); ok {
		at, _ := ctx.Deadline()
		_ = bounded.SetWriteDeadline(at) // of a connection that has ended Write tells
	}
	c.buf = appendFrame(c.buf[:0], number, kind, flags, parts...)
	n, err := c.conn.Write(c.buf)
	if cap(c.buf) > keptBuffer {
		c.buf = nil
	}
	switch {
	case err == nil || errors.Is(err, syscall.EPIPE):
		return nil
	case n == 0 && errors.Is(err, os.ErrDeadlineExceeded):
		return context.DeadlineExceeded
	}
	_ = c.conn.Close() // it may have been a part of the frame
	return nil
}

// Call makes a call of one message either way. The service is told when ctx ends it.
func (c *Conn) Call(ctx context.Context, service, method string, request Message) (Message, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if request == nil {
		request = Message{}
	}
	s, err := c.open(ctx, service, method, request, 1)
	if err != nil {
		return nil, err
	}
	answer, err := s.Recv()
	if err == io.EOF {
		err = ErrMalformed // no answer, and no error
	}
	if ctx.Err() != nil {
		s.CloseSend()
		s.forget()
	}
	return answer, err
}

// forget drops what still comes for a call that nobody waits for.
func (s *Call) forget() {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	delete(s.conn.calls, s.number)
}

// Send sends a message, and tells whether it could: not behind CloseSend or the end.
func (s *Call) Send(m Message) error {
	if len(m) > largest {
		return tooLarge(len(m))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.hasEnded() {
		return ErrClosed
	}
	if err := s.conn.turn(s.ctx); err != nil {
		return err
	}
	defer s.conn.pass()
	return s.conn.write(s.ctx, s.number, typeData, 0, m)
}

// lastWords is how long a service may take to read that a call is given up whose context
// has ended.
const lastWords = 100 * time.Millisecond

// CloseSend tells the service once that nothing more is sent, unless the call has ended.
func (s *Call) CloseSend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.hasEnded() && !s.isTorn() {
		return
	}
	s.closed = true
	ctx := s.ctx
	if ctx.Err() != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), lastWords)
		defer cancel()
	}
	if s.conn.turn(ctx) == nil {
		_ = s.conn.write(ctx, s.number, typeData, flagRemoteClosed|flagNoData) // nothing can be done for who does not read
		s.conn.pass()
	}
}

// In gives the messages of the service and is closed at the end of the call, for which Err
// has the reason then.
func (s *Call) In() <-chan Message { return s.in }

// Err is why a call has ended whose In is closed; nil: it went well.
func (s *Call) Err() error { return s.err }

// Recv takes the next message. io.EOF: the call has ended well.
func (s *Call) Recv() (Message, error) {
	select {
	case m, ok := <-s.in:
		switch {
		case ok:
			return m, nil
		case s.err != nil:
			return nil, s.err
		}
		return nil, io.EOF
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

func (s *Call) hasEnded() bool {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return s.over
}

func (s *Call) isTorn() bool {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return s.torn
}

// read hands out what comes until the connection ends.
func (c *Conn) read() {
	defer close(c.ended)
	reader := bufio.NewReaderSize(c.conn, 4096)
	for {
		f, err := readFrame(reader)
		if err != nil || f.kind != typeResponse && f.kind != typeData {
			break
		}
		c.deliver(f)
	}
	_ = c.conn.Close() // what follows a frame that is malformed cannot be understood
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.calls {
		s.end(ErrClosed)
	}
	c.calls = nil
}

// deliver brings a frame to its call. One for a call that has ended is dropped.
func (c *Conn) deliver(f frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.calls[f.stream]
	if s == nil {
		return
	}
	m, last := f.payload, f.flags&flagRemoteClosed != 0
	var err error
	if f.kind == typeResponse {
		m, last, err = f.payload.Message(2), true, readStatus(f.payload.Message(1))
		if err == nil {
			err = m.Check()
		}
	}
	if err == nil && (f.kind == typeResponse || f.flags&flagNoData == 0) {
		select {
		case s.in <- m:
		default:
			last, err = true, ErrFlood
		}
	}
	if last {
		delete(c.calls, f.stream)
		s.torn = err == ErrFlood
		s.end(err)
	}
}

// end lets no further message in. The caller holds the connection's mu.
func (s *Call) end(err error) {
	s.err, s.over = err, true
	close(s.in)
}
