package server

import (
	"errors"
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

	mostCalls    int
	mostRequests int64
	mostAnswers  int64

	mu       sync.Mutex
	unread   int64 // bytes of stdin that the server holds
	calls    int   // that are not answered
	requests int64 // bytes of their requests
	answers  int64 // bytes of large answers that are not taken
}

// account finds or makes the account of a uid. Locked by Server.mu.
func (s *Server) account(uid uint32) *account {
	a := s.accounts[uid]
	if a == nil {
		a = &account{own: uid == 0 || uid == uint32(os.Geteuid()), mostStreams: s.o.MaxStreamsPerUID,
			mostUnread: s.o.MaxUnreadPerUID, mostConnection: s.o.MaxConnectionsPerUID,
			mostCalls: s.o.MaxCallsPerUID, mostRequests: s.o.MaxRequestsPerUID, mostAnswers: s.o.MaxAnswersPerUID}
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

// arrives counts a request of so many bytes in whose first bytes are there. Up to twice
// of what the user may have they are refused in order, see mayCall; then the connection ends.
func (a *account) arrives(bytes int64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.own && (a.calls >= 2*a.mostCalls || a.requests+bytes > 2*a.mostRequests) {
		return errors.New("the calls of this user that are not answered are too many or too long")
	}
	a.calls++
	a.requests += bytes
	return nil
}

// answered counts requests out.
func (a *account) answered(calls int, bytes int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls -= calls
	a.requests -= bytes
}

// mayCall refuses a call, which is counted in, where the user has too many.
func (a *account) mayCall() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.own || a.calls <= a.mostCalls && a.requests <= a.mostRequests {
		return nil
	}
	return fault.New(fault.TooManyExecutions, "", fmt.Sprintf("%d calls of this user are open, with requests of %d bytes", a.calls, a.requests)).
		WithHint("Wait for some of them to return.")
}

// owe counts a large answer in that is to be written; false: the user takes too few.
func (a *account) owe(bytes int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.own && a.answers+int64(bytes) > a.mostAnswers {
		return false
	}
	a.answers += int64(bytes)
	return true
}

func (a *account) took(bytes int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answers -= int64(bytes)
}
