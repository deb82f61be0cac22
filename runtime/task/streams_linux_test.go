package task

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec/fault"
)

func fifo(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestOutputWaitsForItsClient: what is written by one who ends before the client has
// opened the other end is not lost.
func TestOutputWaitsForItsClient(t *testing.T) {
	path := fifo(t, "stdout")
	read := make(chan string)
	go func() {
		f, err := os.Open(path)
		if err != nil {
			read <- err.Error()
			return
		}
		defer f.Close()
		text, _ := io.ReadAll(f) // what it has is compared
		read <- string(text)
	}()
	s := newStreams([3]string{1: path}, false)
	if err := s.openAll(uint32(os.Getuid()), uint32(os.Getgid())); err != nil {
		t.Fatal(err)
	}
	if _, err := s.give[1].WriteString("said"); err != nil {
		t.Error(err)
	}
	s.given()
	s.finish(draining)
	if got := <-read; got != "said" {
		t.Errorf("read %q", got)
	}
}

// TestClientIsGone: without a client an output opens all the same, and is no broken pipe.
func TestClientIsGone(t *testing.T) {
	s := newStreams([3]string{fifo(t, "stdin"), fifo(t, "stdout"), ""}, false)
	if err := s.openAll(uint32(os.Getuid()), uint32(os.Getgid())); err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if _, err := s.give[1].WriteString("said"); err != nil {
		t.Error(err)
	}
	if s.give[2] != nil {
		t.Error("a stream without a name is something")
	}
	// The end of stdin comes when it is asked for, not before.
	if err := unix.SetNonblock(int(s.give[0].Fd()), true); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1)
	if n, err := unix.Read(int(s.give[0].Fd()), buf); err != unix.EAGAIN {
		t.Errorf("stdin: %d, %v", n, err)
	}
	s.closeStdin()
	s.closeStdin()
	if n, err := unix.Read(int(s.give[0].Fd()), buf); n != 0 || err != nil {
		t.Errorf("stdin after its end: %d, %v", n, err)
	}
}

// TestProgramsAsLogs are refused; files get what is written.
func TestProgramsAsLogs(t *testing.T) {
	s := newStreams([3]string{1: "binary:///bin/true?id=x"}, false)
	var f *fault.Fault
	if err := s.openAll(0, 0); !errors.As(err, &f) || f.Field != "stdout" || !errors.Is(err, &fault.Fault{Code: fault.Unsupported}) {
		t.Errorf("%v", err)
	}
	path := filepath.Join(t.TempDir(), "log")
	for range 2 {
		s = newStreams([3]string{1: "file://" + path}, false)
		if err := s.openAll(0, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := s.give[1].WriteString("line\n"); err != nil {
			t.Error(err)
		}
		s.given()
		s.finish(draining)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "line\nline\n" {
		t.Errorf("%q, %v", text, err)
	}
}

// TestTerminalHasOneOutput: a kubelet's containerd names a stderr beside a terminal, which
// it does not read. All goes to stdout, and nobody waits for a reader of stderr.
func TestTerminalHasOneOutput(t *testing.T) {
	out := fifo(t, "stdout")
	reader, err := os.OpenFile(out, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	s := newStreams([3]string{1: out, 2: filepath.Join(t.TempDir(), "none", "stderr")}, true)
	if err := s.openAll(0, 0); err != nil {
		t.Fatal(err)
	}
	master, slave, err := pty()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.attach(master); err != nil {
		t.Fatal(err)
	}
	if _, err := slave.WriteString("said"); err != nil {
		t.Error(err)
	}
	slave.Close()
	s.finish(draining)
	if text, err := io.ReadAll(reader); err != nil || string(text) != "said" {
		t.Errorf("read %q, %v", text, err)
	}
}

// pty is a new terminal and its other side.
func pty() (master, slave *os.File, err error) {
	if master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return nil, nil, err
	}
	err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	n, bad := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err = errors.Join(err, bad); err == nil {
		slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		master.Close()
	}
	return master, slave, err
}
