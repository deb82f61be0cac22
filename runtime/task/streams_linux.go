package task

import (
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec/fault"
)

// streams are the standard streams of one process, and what the server keeps of them.
type streams struct {
	paths    [3]string
	terminal bool
	// give are for the process and closed once it has them. Nil: /dev/null.
	give [3]*os.File

	mu     sync.Mutex
	stdin  int      // the writing end of its stdin, which keeps it from its end. -1: none
	keep   []int    // the reading ends of its outputs, without which they are broken pipes
	in     *os.File // of a terminal: where its input comes from. Nil: there is none
	out    *os.File // and where its output goes
	master *os.File
	closed bool
	copies sync.WaitGroup
}

// opening is how long a client may take to open its end of an output.
const opening = 2 * time.Second

// draining is how long a deleted process' last output may take on its way.
const draining = 2 * time.Second

// newStreams are those that containerd names. Empty names are /dev/null.
func newStreams(paths [3]string, terminal bool) *streams {
	return &streams{paths: paths, terminal: terminal, stdin: -1}
}

// openAll opens them and gives them to the user of the process. On failure nothing is
// open.
func (s *streams) openAll(uid, gid uint32) error {
	for i, name := range s.paths {
		if name == "" || i == 2 && s.terminal { // a kubelet's containerd names a stderr of a terminal and never reads it
			continue
		}
		if err := s.open(i, name, int(uid), int(gid)); err != nil {
			s.close()
			var f *fault.Fault
			if !errors.As(err, &f) {
				f = fault.Wrap(fault.IO, "open stream", err)
			}
			return f.WithPath(name).WithField([]string{"stdin", "stdout", "stderr"}[i])
		}
	}
	return nil
}

func (s *streams) open(i int, name string, uid, gid int) error {
	path := name
	if scheme, rest, ok := strings.Cut(name, "://"); ok {
		if path = rest; scheme != "fifo" && scheme != "file" {
			return fault.New(fault.Unsupported, "open stream", "a program as a log is not supported").WithHint("Let containerd have the output: a path or file://.")
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil && (i == 0 || err != unix.ENOENT) {
		return err
	} else if err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return s.openFile(i, path)
	}
	r, w, err := openBoth(path, i != 0)
	if err != nil {
		return err
	}
	mine, theirs := r, w
	if i == 0 {
		mine, theirs = w, r
	}
	s.mu.Lock()
	if i == 0 {
		s.stdin = mine
	} else {
		s.keep = append(s.keep, mine)
	}
	s.mu.Unlock()
	if s.terminal {
		return s.link(i, os.NewFile(uintptr(theirs), path))
	}
	if err := unix.SetNonblock(theirs, false); err != nil {
		unix.Close(theirs)
		return err
	}
	s.give[i] = os.NewFile(uintptr(theirs), path)
	// So that it can open /dev/stdout, as it can open a pipe of its own.
	return unix.Fchown(theirs, uid, gid)
}

const openOptions = unix.O_NONBLOCK | unix.O_CLOEXEC

// openBoth opens both ends of a FIFO, neither of which waits when it is read or written.
func openBoth(path string, output bool) (r, w int, err error) {
	if output {
		if w, err = openOutput(path); err != nil {
			return -1, -1, err
		}
		if r, err = unix.Open(path, unix.O_RDONLY|openOptions, 0); err != nil {
			unix.Close(w)
		}
		return r, w, err
	}
	if r, err = unix.Open(path, unix.O_RDONLY|openOptions, 0); err != nil {
		return -1, -1, err
	}
	if w, err = unix.Open(path, unix.O_WRONLY|openOptions, 0); err != nil {
		unix.Close(r)
	}
	return r, w, err
}

// openOutput opens a FIFO for writing once its client has opened it for reading, for what
// is written before that is lost when the process ends meanwhile. It waits no longer than
// opening: a client may be gone.
func openOutput(path string) (w int, err error) {
	if w, err = unix.Open(path, unix.O_WRONLY|openOptions, 0); err != unix.ENXIO {
		return w, err
	}
	opened := make(chan struct{})
	go func() {
		w, err = unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		close(opened)
	}()
	timer := time.NewTimer(opening)
	defer timer.Stop()
	select {
	case <-opened:
	case <-timer.C:
		r, bad := unix.Open(path, unix.O_RDONLY|openOptions, 0) // by which the other open returns
		if bad != nil {
			return -1, bad
		}
		<-opened
		unix.Close(r)
	}
	if err == nil {
		err = unix.SetNonblock(w, true)
	}
	return w, err
}

// link notes a terminal's other side.
func (s *streams) link(i int, f *os.File) error {
	if i == 0 {
		s.in = f
	} else {
		s.out = f
	}
	return nil
}

// openFile is for what is no FIFO: a file that output is appended to. The process gets a
// pipe, since the file is the host's.
func (s *streams) openFile(i int, path string) error {
	if i == 0 {
		f, err := os.Open(path)
		s.give[0] = f
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if s.terminal {
		return s.link(i, f)
	}
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		f.Close()
		return err
	}
	s.give[i] = os.NewFile(uintptr(ends[1]), path)
	_ = unix.SetNonblock(ends[0], true) // a fresh descriptor of ours
	r := os.NewFile(uintptr(ends[0]), path)
	s.copies.Go(func() {
		_, _ = io.Copy(f, r) // what cannot be written is lost, as a full disk has it
		_, _ = io.Copy(io.Discard, r)
		f.Close()
		r.Close()
	})
	return nil
}

// given closes what the process has by now.
func (s *streams) given() {
	for i, f := range s.give {
		if f != nil {
			f.Close()
			s.give[i] = nil
		}
	}
}

// attach begins to copy between a terminal and the other side.
func (s *streams) attach(terminal *os.File) error {
	fd, err := unix.FcntlInt(terminal.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	terminal.Close()
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		return fault.Wrap(fault.SystemCall, "take terminal", err)
	}
	master := os.NewFile(uintptr(fd), "terminal")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.master = master
	if s.in != nil {
		go func() { _, _ = io.Copy(master, s.in) }() // ends when either is closed
	}
	to := io.Discard
	if s.out != nil {
		to = s.out
	}
	s.copies.Go(func() {
		_, _ = io.Copy(to, master)         // EIO: the last process has closed it
		_, _ = io.Copy(io.Discard, master) // of a reader that is gone
	})
	return nil
}

// resize gives the terminal another size.
func (s *streams) resize(width, height uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.master == nil || s.closed {
		return nil // as other runtimes have it
	}
	raw, err := s.master.SyscallConn()
	if err == nil {
		bad := raw.Control(func(fd uintptr) {
			err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(height), Col: uint16(width)})
		})
		err = errors.Join(err, bad)
	}
	if err != nil {
		return fault.Wrap(fault.SystemCall, "resize terminal", err)
	}
	return nil
}

// closeStdin lets the process see the end of its stdin once its client has closed it too.
func (s *streams) closeStdin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stdin >= 0 {
		unix.Close(s.stdin)
		s.stdin = -1
	}
}

// finish waits for what is still on its way from a process that has ended, and closes
// all. It may be called several times.
func (s *streams) finish(within time.Duration) {
	done := make(chan struct{})
	go func() {
		s.copies.Wait()
		close(done)
	}()
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
	s.close()
}

func (s *streams) close() {
	s.given()
	s.closeStdin()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, fd := range s.keep {
		unix.Close(fd)
	}
	s.keep = nil
	for _, f := range []*os.File{s.in, s.out, s.master} {
		if f != nil {
			_ = f.Close() // it may be closed already
		}
	}
}
