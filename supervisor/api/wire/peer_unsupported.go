//go:build !linux

package wire

import (
	"net"
	"runtime"

	"github.com/capsule-run/capsule/spec/fault"
)

// Credentials are those of the process at the other end of a unix socket.
type Credentials struct {
	UID, GID uint32
	Pid      int
}

// Peer is E2008: capsuled needs Linux.
func Peer(net.Conn) (Credentials, error) {
	return Credentials{}, fault.New(fault.Unsupported, "identify the peer", "capsuled is not served on "+runtime.GOOS)
}
