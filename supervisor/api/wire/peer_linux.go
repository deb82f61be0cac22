package wire

import (
	"net"

	"golang.org/x/sys/unix"

	"github.com/capsule-run/capsule/spec/fault"
)

// Credentials are those of the process at the other end of a unix socket, as
// they were when it connected (or listened).
type Credentials struct {
	UID, GID uint32
	// Pid may since belong to another process.
	Pid int
}

// Peer asks the kernel (SO_PEERCRED) who is at the other end. A connection that
// is not a unix socket is E5004.
func Peer(conn net.Conn) (Credentials, error) {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return Credentials{}, fault.New(fault.NotAuthorised, "identify the peer", "it is not connected by a unix socket")
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return Credentials{}, fault.Wrap(fault.IO, "identify the peer", err)
	}
	var cred *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return Credentials{}, fault.Wrap(fault.SystemCall, "getsockopt SO_PEERCRED", err)
	}
	return Credentials{UID: cred.Uid, GID: cred.Gid, Pid: int(cred.Pid)}, nil
}
