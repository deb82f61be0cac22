package handover

import (
	"errors"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Sender is a connection on which pipes can be sent. Its methods are safe for
// concurrent use.
type Sender struct {
	*net.UnixConn

	mu     sync.Mutex
	queue  []*os.File // go with the bytes that are written next
	closed bool
}

// NewSender takes over conn.
func NewSender(conn *net.UnixConn) *Sender { return &Sender{UnixConn: conn} }

// Add takes over the read end of a pipe, which goes with the bytes that are written
// next, and returns the inode number by which these are to announce it.
func (s *Sender) Add(pipe *os.File) (uint64, error) {
	inode, err := inodeOf(pipe)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
	case s.closed:
		err = net.ErrClosed
	case len(s.queue) == maxWaiting:
		err = errors.New("too many pipes wait to be sent")
	}
	if err != nil {
		_ = pipe.Close() // nothing was read from it
		return 0, err
	}
	s.queue = append(s.queue, pipe)
	return inode, nil
}

// Write implements net.Conn.
func (s *Sender) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.mu.Lock()
	pipes := s.queue
	s.queue = nil
	s.mu.Unlock()
	if len(pipes) == 0 {
		return s.UnixConn.Write(p)
	}
	n, err := s.writeWith(p, pipes)
	if err == nil && n < len(p) {
		var m int
		m, err = s.UnixConn.Write(p[n:])
		n += m
	}
	return n, err
}

// writeWith sends pipes, which it closes, with the first bytes of p.
func (s *Sender) writeWith(p []byte, pipes []*os.File) (n int, err error) {
	defer closeAll(pipes)
	fds := make([]int, len(pipes))
	for i, pipe := range pipes {
		raw, err := pipe.SyscallConn()
		if err != nil {
			return 0, err
		}
		// Nobody else closes it, so that the number stays good.
		if err := raw.Control(func(fd uintptr) { fds[i] = int(fd) }); err != nil {
			return 0, err
		}
	}
	n, _, err = s.UnixConn.WriteMsgUnix(p, unix.UnixRights(fds...), nil)
	return n, err
}

// Close ends the connection and gives up what was not sent.
func (s *Sender) Close() error {
	s.mu.Lock()
	s.closed = true
	closeAll(s.queue)
	s.queue = nil
	s.mu.Unlock()
	return s.UnixConn.Close()
}

// closeAll closes pipes from which nothing was read.
func closeAll(pipes []*os.File) {
	for _, pipe := range pipes {
		_ = pipe.Close()
	}
}

// Supported tells whether pipes can be received here.
const Supported = true

// Receiver is a connection on which pipes arrive. Read is for one goroutine, as it
// is of every connection with frames; Take and Close may be called by any.
type Receiver struct {
	*net.UnixConn
	control [16 + 4*maxWaiting]byte // room for a header and so many descriptors

	mu      sync.Mutex
	waiting map[uint64]*os.File
	closed  bool
}

// NewReceiver takes over conn.
func NewReceiver(conn *net.UnixConn) *Receiver { return &Receiver{UnixConn: conn} }

// Read implements net.Conn.
func (r *Receiver) Read(p []byte) (int, error) {
	n, control, _, _, err := r.UnixConn.ReadMsgUnix(p, r.control[:])
	if control > 0 {
		r.keep(r.control[:control])
	}
	return max(n, 0), err // -1 with an error
}

// keep stores the descriptors of a control message for Take.
func (r *Receiver) keep(control []byte) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return // the kernel writes none that cannot be read
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue // not of descriptors
		}
		for _, fd := range fds {
			r.put(os.NewFile(uintptr(fd), "pipe"))
		}
	}
}

// put stores one descriptor, or closes what is no pipe or too much.
func (r *Receiver) put(f *os.File) {
	inode, err := inodeOf(f)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil || r.closed || len(r.waiting) == maxWaiting || r.waiting[inode] != nil {
		_ = f.Close() // nothing was read from it
		return
	}
	if r.waiting == nil {
		r.waiting = map[uint64]*os.File{}
	}
	r.waiting[inode] = f
}

// Take gives the pipe that a message has announced, which then belongs to the
// caller; false: it did not come.
func (r *Receiver) Take(inode uint64) (*os.File, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.waiting[inode]
	delete(r.waiting, inode)
	return f, f != nil
}

// Close ends the connection and gives up what was not taken.
func (r *Receiver) Close() error {
	r.mu.Lock()
	r.closed = true
	closeAll(slices.Collect(maps.Values(r.waiting)))
	r.waiting = nil
	r.mu.Unlock()
	return r.UnixConn.Close()
}

// inodeOf is the number of a pipe; what is none is an error.
func inodeOf(f *os.File) (uint64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if info.Mode()&os.ModeNamedPipe == 0 {
		return 0, os.ErrInvalid
	}
	return inodeOfInfo(info), nil
}

// inodeOfInfo is the inode number in what Stat gave.
func inodeOfInfo(info os.FileInfo) uint64 { return info.Sys().(*syscall.Stat_t).Ino }
