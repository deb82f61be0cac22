package shim

import (
	"net"
	"testing"
)

// TestLifelineLost: a connection on which ttrpc could not write is closed and
// never read again. The shim must learn of it all the same, or it would wait for ever.
func TestLifelineLost(t *testing.T) {
	for name, end := range map[string]func(l *lifeline, peer net.Conn){
		"peer gone": func(l *lifeline, peer net.Conn) {
			peer.Close()
			_, _ = l.Read(make([]byte, 1)) // the end of the stream
		},
		"closed": func(l *lifeline, _ net.Conn) { l.Close() },
		"both": func(l *lifeline, peer net.Conn) {
			peer.Close()
			_, _ = l.Read(make([]byte, 1)) // the end of the stream
			l.Close()
		},
	} {
		a, b := net.Pipe()
		l := &lifeline{Conn: a, lost: make(chan struct{})}
		if isClosed(l.lost) {
			t.Errorf("%s: lost from the start", name)
		}
		end(l, b)
		if !isClosed(l.lost) {
			t.Errorf("%s: not noticed", name)
		}
		a.Close()
		b.Close()
	}
}
