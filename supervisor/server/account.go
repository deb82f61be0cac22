package server

import (
	"fmt"
	"os"
	"sync"

	"github.com/capsule-run/capsule/spec/fault"
)

// account is what all connections of one uid use together. Those of root and of
// the server's own user are not bounded: they could end the server as well.
type account struct {
	own            bool
	streams        int
	mostStreams    int
	mostUnread     int64
	connections    int // guarded by Server.mu
	mostConnection int

	mu     sync.Mutex
	unread int64 // bytes of stdin that the server holds
}

// account finds or makes the account of a uid. Locked by Server.mu.
func (s *Server) account(uid uint32) *account {
	a := s.accounts[uid]
	if a == nil {
		a = &account{own: uid == 0 || uid == uint32(os.Geteuid()), mostStreams: s.o.MaxStreamsPerUID,
			mostUnread: s.o.MaxUnreadPerUID, mostConnection: s.o.MaxConnectionsPerUID}
		s.accounts[uid] = a
	}
	return a
}

// openStream counts a stream in.
func (a *account) openStream() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.own && a.streams >= a.mostStreams {
		return fault.New(fault.TooManyExecutions, "", fmt.Sprintf("%d streams of this user are open", a.streams)).
			WithHint("Close some of them: attach, logs and events are streams.")
	}
	a.streams++
	return nil
}

func (a *account) closeStream() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.streams--
}

// hold counts bytes that the server holds for the user, or refuses them.
func (a *account) hold(bytes int) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.own && a.unread+int64(bytes) > a.mostUnread {
		return fault.New(fault.TooManyExecutions, "attach", "too much stdin of this user is not read by its commands").
			WithField("/stdin_data").WithHint("Attach again with stdin when the commands have read some of it.")
	}
	a.unread += int64(bytes)
	return nil
}

func (a *account) drop(bytes int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.unread -= int64(bytes)
}
