//go:build !linux

package handover

import (
	"errors"
	"net"
	"os"
)

// Sender is a connection on which no pipe can be sent.
type Sender struct{ *net.UnixConn }

// NewSender takes over conn.
func NewSender(conn *net.UnixConn) *Sender { return &Sender{conn} }

// Add refuses.
func (*Sender) Add(pipe *os.File) (uint64, error) {
	return 0, errors.Join(errors.ErrUnsupported, pipe.Close())
}

// Supported tells whether pipes can be received here.
const Supported = false

// Receiver is a connection on which no pipe arrives.
type Receiver struct{ *net.UnixConn }

// NewReceiver takes over conn.
func NewReceiver(conn *net.UnixConn) *Receiver { return &Receiver{conn} }

// Take gives none.
func (*Receiver) Take(uint64) (*os.File, bool) { return nil, false }
