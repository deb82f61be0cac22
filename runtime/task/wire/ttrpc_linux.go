package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec/fault"
)

// The types of a frame.
const (
	typeRequest  = 1
	typeResponse = 2
)

const (
	headerSize = 10
	// largest is what ttrpc allows a payload to have.
	largest = 4 << 20
)

// readFrame reads one frame. io.EOF: there is no further one.
func readFrame(r io.Reader) (stream uint32, kind byte, payload Message, err error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, 0, nil, err
	}
	size := binary.BigEndian.Uint32(header[:])
	stream, kind = binary.BigEndian.Uint32(header[4:]), header[8]
	if size > largest {
		return stream, kind, nil, ErrMalformed
	}
	payload = make(Message, size)
	if _, err = io.ReadFull(r, payload); err != nil {
		return stream, kind, nil, err
	}
	return stream, kind, payload, payload.Check()
}

// frame is a frame in one piece.
func frame(stream uint32, kind byte, payload Message) []byte {
	b := make([]byte, headerSize, headerSize+len(payload))
	binary.BigEndian.PutUint32(b, uint32(len(payload)))
	binary.BigEndian.PutUint32(b[4:], stream)
	b[8] = kind
	return append(b, payload...)
}

// Handler answers one call. An error that is no *Status has the code Unknown.
type Handler func(service, method string, request Message) (Message, error)

// Serve answers the calls of all who connect to a listening unix socket and are of our
// user, each in a goroutine of its own. It returns when the socket is closed.
func Serve(listener *os.File, handle Handler) error {
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
		case unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS:
			time.Sleep(100 * time.Millisecond) // until somebody has closed something
			continue
		default:
			continue // of a connection that is gone already
		}
		conn := os.NewFile(uintptr(fd), "client")
		peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil || int(peer.Uid) != os.Geteuid() {
			conn.Close()
			continue
		}
		go converse(conn, handle)
	}
}

// converse answers the calls of one client until it goes.
func converse(conn *os.File, handle Handler) {
	defer conn.Close()
	var writing sync.Mutex
	reader := bufio.NewReaderSize(conn, 1024)
	for {
		stream, kind, request, err := readFrame(reader)
		if err != nil || kind != typeRequest {
			return // what follows cannot be told apart from what is wrong
		}
		go func() {
			answer := answerTo(request, handle)
			writing.Lock()
			defer writing.Unlock()
			_, _ = conn.Write(frame(stream, typeResponse, answer)) // the reader sees that it is gone
		}()
	}
}

// answerTo is the ttrpc response to a ttrpc request.
func answerTo(request Message, handle Handler) Message {
	payload := request.Message(3)
	err := payload.Check()
	var result Message
	if err != nil {
		err = &Status{InvalidArgument, err.Error()}
	} else {
		result, err = handle(request.String(1), request.String(2), payload)
	}
	if err == nil && len(result) > largest-headerSize {
		err = &Status{Unknown, "the answer is too large"}
	}
	if err == nil {
		return Message(nil).Put(2, result)
	}
	code := Unknown
	var status *Status
	if errors.As(err, &status) {
		code = status.Code
	}
	return Message(nil).Put(1, Message(nil).PutUint(1, uint64(code)).PutString(2, err.Error()))
}

// Client calls a service at a unix socket, one call after the other.
type Client struct {
	// Path is the socket's.
	Path   string
	conn   *os.File
	stream uint32
}

// Call connects when there is no connection and makes one call that may take so long.
func (c *Client) Call(service, method string, request Message, within time.Duration) (err error) {
	if c.conn == nil {
		if c.conn, err = Dial(c.Path); err != nil {
			return err
		}
		c.stream = 1
	}
	defer func() {
		c.stream += 2 // those of clients are odd
		if err != nil {
			c.Close()
		}
	}()
	if err := c.conn.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	call := Message(nil).PutString(1, service).PutString(2, method).Put(3, request).PutUint(4, uint64(within))
	if _, err := c.conn.Write(frame(c.stream, typeRequest, call)); err != nil {
		return err
	}
	stream, kind, answer, err := readFrame(c.conn)
	if err != nil {
		return err
	}
	if stream != c.stream || kind != typeResponse {
		return ErrMalformed
	}
	if status := answer.Message(1); status.Uint(1) != 0 {
		return &Status{Code(status.Uint(1)), status.String(2)}
	}
	return nil
}

// Close ends the connection, where there is one.
func (c *Client) Close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// Dial connects to a unix socket. The caller closes the connection.
func Dial(path string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fault.Wrap(fault.SystemCall, "socket", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return nil, fault.Wrap(fault.IO, "connect", err).WithPath(path)
	}
	return os.NewFile(uintptr(fd), path), nil
}
