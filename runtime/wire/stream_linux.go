package wire

import (
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// streamQueue is how many messages of a client may wait to be taken. A service tells its
// clients how many they may send ahead, which is less: a call whose client sends more is
// ended, so that one call holds up no other of the connection.
const streamQueue = 64

// Stream is a call with several messages either way.
type Stream struct {
	session *session
	number  uint32
	ctx     context.Context

	in   chan Message // closed when the client sends nothing more
	full bool         // it sent more than may wait; set before in is closed
	over bool         // in is closed; of the reader of the connection alone
}

// Recv takes the client's next message. io.EOF: it sends nothing more.
func (s *Stream) Recv() (Message, error) {
	select {
	case m, ok := <-s.in:
		switch {
		case ok:
			return m, nil
		case s.full:
			return nil, &Status{Code: ResourceExhausted, Text: "more messages are under way than the call allows"}
		}
		return nil, io.EOF
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

// Send sends a message in two pieces, of which the second is not copied before it is
// written: the end of a message may be a long field of bytes.
func (s *Stream) Send(head Message, tail []byte) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if len(head)+len(tail) > largest {
		return &Status{Code: Unknown, Text: "the message is too large"}
	}
	return s.session.send(s.number, typeData, 0, head, tail)
}

// errNoDescriptors is what SendWith gives on a connection that is no socket.
var errNoDescriptors = errors.New("no descriptor can be sent on this connection")

// SendWith sends a message and with its first bytes a descriptor (SCM_RIGHTS, unix(7)), which
// stays the caller's. The connection is a unix socket in Go's poller.
func (s *Stream) SendWith(head Message, with *os.File) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if len(head) > largest {
		return &Status{Code: Unknown, Text: "the message is too large"}
	}
	c := s.session
	conn, ok := c.conn.(*os.File)
	if !ok {
		return errNoDescriptors
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	c.buf = appendFrame(c.buf[:0], s.number, typeData, 0, head)
	n, err := writeWith(conn, c.buf, with)
	if err == nil && n < len(c.buf) {
		_, err = conn.Write(c.buf[n:])
	}
	return err
}

// writeWith writes the first of some bytes, and tells how many, with a descriptor.
func writeWith(conn *os.File, p []byte, with *os.File) (n int, err error) {
	to, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	what, err := with.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = to.Write(func(fd uintptr) bool {
		failed = what.Control(func(w uintptr) {
			n, err = unix.SendmsgN(int(fd), p, unix.UnixRights(int(w)), nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		})
		if failed == nil {
			failed = err
		}
		return failed != unix.EAGAIN && failed != unix.EINTR
	})
	if err == nil {
		err = failed
	}
	return max(n, 0), err
}

// end lets no further message in. The reader of the connection alone calls it.
func (s *Stream) end() {
	if !s.over {
		s.over = true
		close(s.in)
	}
}

// deliver brings a frame of data to its call. One of a call that has ended is dropped.
func (c *session) deliver(f frame) {
	v, ok := c.streams.Load(f.stream)
	if !ok {
		return
	}
	s, several := v.(*Stream)
	if !several { // a caller that sends nothing more to a call of one message has given it up
		v.(context.CancelFunc)()
		return
	}
	if f.flags&flagNoData == 0 && !s.over {
		select {
		case s.in <- f.payload:
		default:
			s.full = true
			s.end()
			return
		}
	}
	if f.flags&flagRemoteClosed != 0 {
		s.end()
	}
}
