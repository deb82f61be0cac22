package wire

import (
	"encoding/binary"
	"io"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec/fault"
)

// The types of a frame.
const (
	typeRequest  = 1
	typeResponse = 2
	typeData     = 3
)

// The flags of a frame of data; a request that opens a call of several messages may have
// the first.
const (
	flagRemoteClosed = 1 // the sender sends nothing more
	flagNoData       = 4 // the payload is no message
)

const (
	headerSize = 10
	// largest is what ttrpc allows a payload to have.
	largest = 4 << 20
)

// frame is one of ttrpc's.
type frame struct {
	stream      uint32
	kind, flags byte
	payload     Message
}

// readFrame reads one frame. io.EOF: there is no further one.
func readFrame(r io.Reader) (f frame, err error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return f, err
	}
	size := binary.BigEndian.Uint32(header[:])
	f.stream, f.kind, f.flags = binary.BigEndian.Uint32(header[4:]), header[8], header[9]
	if size > largest {
		return f, ErrMalformed
	}
	f.payload = make(Message, size)
	if _, err = io.ReadFull(r, f.payload); err != nil {
		return f, err
	}
	return f, f.payload.Check()
}

// appendFrame appends a frame whose payload comes in parts.
func appendFrame(b []byte, stream uint32, kind, flags byte, parts ...[]byte) []byte {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	b = slices.Grow(b, headerSize+size)
	b = binary.BigEndian.AppendUint32(b, uint32(size))
	b = binary.BigEndian.AppendUint32(b, stream)
	b = append(b, kind, flags)
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
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
	if _, err := c.conn.Write(appendFrame(nil, c.stream, typeRequest, 0, call)); err != nil {
		return err
	}
	answer, err := readFrame(c.conn)
	if err != nil {
		return err
	}
	if answer.stream != c.stream || answer.kind != typeResponse {
		return ErrMalformed
	}
	if status := answer.payload.Message(1); status.Uint(1) != 0 {
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
