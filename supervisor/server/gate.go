package server

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/capsule-run/capsule/supervisor/api/wire"
)

// The frames of ttrpc: four bytes of length, four of stream id, one of type,
// one of flags, then the message.
const (
	headerSize = 10

	typeRequest  = 1
	typeResponse = 2
	typeData     = 3

	flagRemoteClosed = 1
)

// frames follows the boundaries of frames in a flow of bytes.
type frames struct {
	header [headerSize]byte
	have   int    // bytes of header
	rest   uint32 // bytes of message that are still to come
	begun  bool   // a frame has begun since this was last reset
}

// between says whether the flow is at a boundary.
func (f *frames) between() bool { return f.have == 0 && f.rest == 0 }

// follow passes p through and calls each for every header that is complete.
func (f *frames) follow(p []byte, each func(length, stream uint32, kind, flags byte) error) error {
	for len(p) > 0 {
		if f.rest > 0 {
			n := min(uint32(len(p)), f.rest) // p is never longer than a message
			f.rest -= n
			p = p[n:]
			continue
		}
		f.begun = f.begun || f.have == 0
		n := copy(f.header[f.have:], p)
		f.have += n
		p = p[n:]
		if f.have < headerSize {
			return nil
		}
		f.have = 0
		f.rest = binary.BigEndian.Uint32(f.header[:4])
		if err := each(f.rest, binary.BigEndian.Uint32(f.header[4:8]), f.header[8], f.header[9]); err != nil {
			return err
		}
	}
	return nil
}

// gate stands between ttrpc and a connection. ttrpc would start a goroutine for
// every request as fast as they come, wait for ever for the rest of a frame,
// discard gigabytes of an oversized one, and not notice most errors of reading.
type gate struct {
	net.Conn
	limit    int           // calls that may be open before reading pauses
	patience time.Duration // for the first frame, and for the rest of each
	account  *account      // set by Server.enter
	ended    chan struct{} // closed when the connection is over
	once     sync.Once

	in, out frames
	timed   bool // a read deadline is set

	mu   sync.Mutex
	open map[uint32]uint32 // calls that have not been answered, with the length of their requests; nil: it is over
	room chan struct{}     // has an element when an answer was sent
	why  error             // why the connection is over; nil: the caller left
}

func newGate(conn net.Conn, limit int, patience time.Duration) *gate {
	return &gate{
		Conn: conn, limit: limit, patience: patience, timed: true,
		ended: make(chan struct{}), open: map[uint32]uint32{}, room: make(chan struct{}, 1),
	}
}

// Read implements net.Conn. Every end of the connection is io.EOF, because
// ttrpc goes on waiting after any other error.
func (g *gate) Read(p []byte) (int, error) {
	if err := g.waitForRoom(); err != nil {
		return 0, io.EOF
	}
	n, err := g.Conn.Read(p)
	if n > 0 {
		if bad := g.in.follow(p[:n], g.arrives); bad != nil {
			n, err = 0, bad
		} else {
			g.setDeadline()
		}
	}
	if err != nil {
		if errors.Is(err, io.EOF) && !g.in.between() {
			err = io.ErrUnexpectedEOF
		}
		g.end(err)
		return n, io.EOF
	}
	return n, nil
}

// setDeadline bounds the time that a frame may take once it has begun. Nothing
// is asked of the kernel for frames that come in one piece.
func (g *gate) setDeadline() {
	switch inside := !g.in.between(); {
	case inside && (g.in.begun || !g.timed):
		g.timed = true
		_ = g.Conn.SetReadDeadline(time.Now().Add(g.patience)) // fails on a closed connection, as the read will
	case !inside && g.timed:
		g.timed = false
		_ = g.Conn.SetReadDeadline(time.Time{})
	}
	g.in.begun = false
}

// arrives judges one frame of the caller's.
func (g *gate) arrives(length, stream uint32, kind, _ byte) error {
	switch {
	case length > wire.MaxMessage:
		return errors.New("a frame is longer than 4 MiB")
	case kind == typeData && length > wire.MaxStreamFrame:
		return errors.New("a message on a stream is longer than 256 KiB")
	case kind != typeRequest && kind != typeData:
		return errors.New("a frame is neither a request nor data")
	case stream%2 == 0:
		return errors.New("a stream id is even")
	}
	if kind == typeRequest {
		return g.count(stream, length)
	}
	return nil
}

// count takes note of a request.
func (g *gate) count(stream, length uint32) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open == nil {
		return net.ErrClosed
	}
	if _, again := g.open[stream]; again {
		return nil // which ttrpc refuses
	}
	if err := g.account.arrives(int64(length)); err != nil {
		return err
	}
	g.open[stream] = length
	return nil
}

// waitForRoom pauses a caller that sends requests and does not take answers.
func (g *gate) waitForRoom() error {
	for {
		g.mu.Lock()
		full := len(g.open) >= g.limit
		g.mu.Unlock()
		if !full {
			return nil
		}
		select {
		case <-g.room:
		case <-g.ended:
			return net.ErrClosed
		}
	}
}

// Write implements net.Conn.
func (g *gate) Write(p []byte) (int, error) {
	n, err := g.Conn.Write(p)
	_ = g.out.follow(p[:n], g.leaves) // leaves gives no error
	if err != nil {
		g.end(err)
	}
	return n, err
}

// leaves takes note of answers.
func (g *gate) leaves(_, stream uint32, kind, flags byte) error {
	if kind != typeResponse && flags&flagRemoteClosed == 0 {
		return nil
	}
	g.mu.Lock()
	if length, ok := g.open[stream]; ok {
		delete(g.open, stream)
		g.account.answered(1, int64(length))
	}
	g.mu.Unlock()
	select {
	case g.room <- struct{}{}:
	default:
	}
	return nil
}

// Close implements net.Conn.
func (g *gate) Close() error {
	g.end(nil)
	return nil
}

// end closes the connection once, for the given reason.
func (g *gate) end(why error) {
	g.once.Do(func() {
		if errors.Is(why, os.ErrDeadlineExceeded) {
			why = errors.New("a frame was begun and not finished in time")
		}
		if why == io.EOF {
			why = nil
		}
		g.mu.Lock()
		g.why = why
		for _, length := range g.open {
			g.account.answered(1, int64(length))
		}
		g.open = nil
		g.mu.Unlock()
		_ = g.Conn.Close() // nothing is buffered, nobody to tell
		close(g.ended)
	})
}

// reason says why the connection is over; nil: the caller left.
func (g *gate) reason() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.why
}
