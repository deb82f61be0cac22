package wire

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec/fault"
)

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
	return readStatus(answer.payload.Message(1))
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
