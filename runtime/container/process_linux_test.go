package container

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestGate: the socket that is the gate is found, and what a command has open under its
// number is asked nothing, for a file system may never answer.
func TestGate(t *testing.T) {
	gate, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(gate)
	var st unix.Stat_t
	if err := unix.Fstat(gate, &st); err != nil {
		t.Fatal(err)
	}
	c := &Container{Record: Record{Process: &Process{Pid: os.Getpid()}, Gate: st.Ino, GateFD: gate}}
	if !c.atGate() {
		t.Error("the gate is not found")
	}
	if c.Gate++; c.atGate() {
		t.Error("another socket is the gate")
	}
	if os.Geteuid() != 0 {
		return
	}
	fuse, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		lack(t, "this host has no /dev/fuse: "+err.Error())
	}
	defer fuse.Close()
	dir := t.TempDir()
	if err := unix.Mount("silent", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, "fd="+strconv.Itoa(int(fuse.Fd()))+",rootmode=40000,user_id=0,group_id=0"); err != nil {
		lack(t, "this host mounts no fuse: "+err.Error())
	}
	defer unix.Unmount(dir, unix.MNT_DETACH) //nolint:errcheck // the directory could not be removed then
	if c.GateFD, err = unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(c.GateFD)
	if c.atGate() {
		t.Error("a directory is the gate")
	}
}

// TestHandoverIsBounded: who listens and takes nothing does not hold a creation for ever.
func TestHandoverIsBounded(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "s")
	listener, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(listener, &unix.SockaddrUnix{Name: name})
	}
	if err == nil {
		err = unix.Listen(listener, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(listener)
	for err == nil { // until the backlog is full
		var one int
		if one, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(one)
		err = unix.Connect(one, &unix.SockaddrUnix{Name: name})
	}
	if err != unix.EAGAIN {
		t.Fatal(err)
	}
	if err := send(name, "linux.seccomp.listenerPath", []byte("{}"), 0); !errors.Is(err, unix.EAGAIN) || !strings.Contains(err.Error(), name) {
		t.Errorf("%v", err)
	}
}

// lack skips a test for what the host lacks. CI has it all.
func lack(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CAPSULE_TEST_STRICT") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}
