package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api/wire"
)

// maxAddress is what the address of a unix socket holds.
const maxAddress = 107

// endpoint is a unix socket that this process made. Closing it removes the
// path, when that is still its own.
type endpoint struct {
	*net.UnixListener
	path string
	made os.FileInfo
}

// Addr implements net.Listener. The kernel knows the temporary name.
func (e *endpoint) Addr() net.Addr { return &net.UnixAddr{Name: e.path, Net: "unix"} }

// Close implements net.Listener.
func (e *endpoint) Close() error {
	err := e.UnixListener.Close()
	if errors.Is(err, net.ErrClosed) {
		return err // it was removed then
	}
	if now, statErr := os.Lstat(e.path); statErr == nil && os.SameFile(now, e.made) {
		err = errors.Join(err, os.Remove(e.path))
	}
	return err
}

// readmit lets the group in again, whose number may have changed hands.
func (e *endpoint) readmit(gid int) error {
	if now, err := os.Lstat(e.path); err != nil || !os.SameFile(now, e.made) {
		return errors.Join(err, fault.New(fault.IO, "admit group", "the socket was replaced").WithPath(e.path))
	}
	return admitGroup(e.path, gid)
}

// listen makes a socket at path. It is made under another name and renamed, so
// that nobody meets one that nobody serves, and what a dead process left there
// is replaced. gid is the group that may connect besides the owner, or noGroup.
func listen(path string, gid int) (*endpoint, error) {
	if err := vacant(path); err != nil {
		return nil, err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, fault.Wrap(fault.IO, "make socket", err).WithPath(path).WithHint("Make its directory, or give another path.")
	}
	defer dir.Close()
	temporary := path + ".new"
	bound := temporary
	if len(bound) > maxAddress {
		bound = fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(temporary))
	}
	if err := os.Remove(temporary); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fault.Wrap(fault.IO, "make socket", err).WithPath(temporary)
	}
	config := net.ListenConfig{Control: private}
	l, err := config.Listen(context.Background(), "unix", bound)
	if err != nil {
		return nil, fault.Wrap(fault.IO, "make socket", err).WithPath(path)
	}
	e := &endpoint{UnixListener: l.(*net.UnixListener), path: path}
	e.SetUnlinkOnClose(false) // it would remove the temporary name
	err = admitGroup(temporary, gid)
	if err == nil {
		e.made, err = os.Lstat(temporary)
	}
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		e.UnixListener.Close()
		return nil, fault.Wrap(fault.IO, "make socket", errors.Join(err, os.Remove(temporary))).WithPath(path)
	}
	return e, nil
}

// private gives a socket mode 0600 before it has a path: the kernel takes the
// mode of the new file from the descriptor.
func private(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) { failed = unix.Fchmod(int(fd), 0o600) })
	return errors.Join(err, failed)
}

// admitGroup lets a group connect.
func admitGroup(path string, gid int) error {
	if gid == noGroup {
		return nil
	}
	if err := os.Lchown(path, -1, gid); err != nil {
		return err
	}
	return os.Chmod(path, 0o660)
}

// vacant refuses a path that somebody serves, or that is no socket.
func vacant(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault.Wrap(fault.IO, "make socket", err).WithPath(path)
	}
	if info.Mode().Type() != os.ModeSocket {
		return fault.New(fault.InvalidPath, "make socket", "something else is there").WithPath(path).WithHint("Remove it, or give another path.")
	}
	for began := time.Now(); ; time.Sleep(lockPause) {
		pid, err := listener(path)
		if pid == 0 || err != nil {
			return err
		}
		// What a dead one had forked may hold its socket too: see forkPatience.
		if alive(pid) || time.Since(began) > forkPatience {
			return fault.New(fault.InvalidValue, "make socket", fmt.Sprintf("process %d serves it", pid)).WithPath(path).
				WithHint("Stop that one, or give another path.")
		}
	}
}

// listener is the process that listens on a socket; 0: nobody does.
func listener(path string) (int, error) {
	conn, err := dial(context.Background(), path)
	if err != nil {
		return 0, nil // what a dead process left
	}
	defer conn.Close()
	peer, err := wire.Peer(conn)
	if err != nil {
		return 0, err
	}
	return int(peer.Pid), nil
}

// dial connects to a socket, also where the path is longer than an address may be.
func dial(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	if len(path) > maxAddress {
		dir, err := os.Open(filepath.Dir(path))
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		path = fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	}
	return d.DialContext(ctx, "unix", path)
}

// activated are the sockets that systemd hands over; none: there is no socket
// unit. They are systemd's and stay when they are closed here.
func activated(gid int) ([]net.Listener, error) {
	var all []net.Listener
	for _, f := range activation.Files(true) {
		l, err := takeOver(f, gid)
		f.Close() // l has its own descriptor
		if err != nil {
			for _, l := range all {
				l.Close()
			}
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

// takeOver makes a listener of a socket that was handed over.
func takeOver(f *os.File, gid int) (net.Listener, error) {
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fault.Wrap(fault.InvalidValue, "take over socket "+f.Name(), err).WithHint("The socket unit needs ListenStream= with a path.")
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		l.Close()
		return nil, fault.New(fault.InvalidValue, "take over socket "+f.Name(), "it is not a unix stream socket").
			WithHint("The socket unit needs ListenStream= with a path.")
	}
	path := u.Addr().String()
	info, err := os.Stat(path)
	if err == nil && gid != noGroup && info.Mode().Perm()&0o007 != 0 {
		err = fmt.Errorf("its mode %v lets everybody in, and not the group alone", info.Mode().Perm())
	}
	if err != nil {
		l.Close()
		return nil, fault.Wrap(fault.InvalidValue, "take over socket "+f.Name(), err).WithPath(path).
			WithHint("The socket unit needs ListenStream= with a path, SocketMode=0600 or 0660.")
	}
	// Whoever connects sees the credentials of the last process that called
	// listen: without this, systemd's.
	if err := unix.Listen(int(f.Fd()), unix.SOMAXCONN); err != nil {
		l.Close()
		return nil, fault.Wrap(fault.SystemCall, "listen", err).WithPath(path)
	}
	return u, nil
}
