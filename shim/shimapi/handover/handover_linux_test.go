package handover

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// pair is a connection whose ends send and receive pipes.
func pair(t *testing.T) (*Sender, *Receiver) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	end := func(fd int) *net.UnixConn {
		f := os.NewFile(uintptr(fd), "end")
		defer f.Close() // FileConn has its own copy
		c, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		return c.(*net.UnixConn)
	}
	s, r := NewSender(end(fds[0])), NewReceiver(end(fds[1]))
	t.Cleanup(func() {
		_ = s.Close() // closed already by some
		_ = r.Close()
	})
	return s, r
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.Close() // closed already by most
		_ = w.Close()
	})
	return r, w
}

// TestPipesComeWithTheirMessage: the bytes are those that were written, each pipe is
// there once they are, whatever the order in which they are taken, and it works.
func TestPipesComeWithTheirMessage(t *testing.T) {
	s, r := pair(t)
	var inodes []uint64
	var ends []*os.File
	for range 3 {
		read, write := pipe(t)
		inode, err := s.Add(read)
		if err != nil {
			t.Fatal(err)
		}
		inodes, ends = append(inodes, inode), append(ends, write)
	}
	message := bytes.Repeat([]byte("0123456789"), 100_000)
	go func() { _, _ = s.Write(message) }() // compared below
	got := make([]byte, len(message))
	if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, message) {
		t.Fatal("the bytes are not those that were sent", err)
	}
	for i := len(inodes) - 1; i >= 0; i-- {
		pipe, ok := r.Take(inodes[i])
		if !ok {
			t.Fatalf("pipe %d did not come", i)
		}
		if _, err := ends[i].WriteString("x"); err != nil {
			t.Fatal(err)
		}
		ends[i].Close() // a pipe
		if all, err := io.ReadAll(pipe); string(all) != "x" || err != nil {
			t.Errorf("%q, %v", all, err)
		}
		pipe.Close() // read only
		if _, again := r.Take(inodes[i]); again {
			t.Error("a pipe was taken twice")
		}
	}
}

// TestPipesThatNobodyTakes are closed with the connection, on either side: who
// writes into them learns it.
func TestPipesThatNobodyTakes(t *testing.T) {
	s, r := pair(t)
	sent, sentEnd := pipe(t)
	if _, err := s.Add(sent); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	queued, queuedEnd := pipe(t)
	if _, err := s.Add(queued); err != nil {
		t.Fatal(err)
	}
	r.Close() // what is under test
	s.Close()
	late, lateEnd := pipe(t)
	if _, err := s.Add(late); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	for i, w := range []*os.File{sentEnd, queuedEnd, lateEnd} {
		if _, err := w.WriteString("x"); !errors.Is(err, unix.EPIPE) {
			t.Errorf("pipe %d: %v", i, err)
		}
	}
}

// TestOnlyPipes: whatever else a peer sends, or too much, is not kept.
func TestOnlyPipes(t *testing.T) {
	s, r := pair(t)
	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Add(file); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("a device was sent: %v", err)
	}
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	// Past Add, as a hostile peer would.
	if _, _, err := s.UnixConn.WriteMsgUnix([]byte("x"), unix.UnixRights(int(null.Fd())), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if _, ok := r.Take(inodeOfInfo(info)); ok || len(r.waiting) != 0 {
		t.Error("a device was received")
	}
	for range maxWaiting {
		read, _ := pipe(t)
		if _, err := s.Add(read); err != nil {
			t.Fatal(err)
		}
	}
	read, w := pipe(t)
	if _, err := s.Add(read); err == nil {
		t.Error("the queue has no bound")
	}
	if _, err := w.WriteString("x"); !errors.Is(err, unix.EPIPE) {
		t.Errorf("what was refused is open: %v", err)
	}
}
