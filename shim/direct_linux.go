package shim

import (
	"os"
	"sync"
	"syscall"

	"github.com/capsule-run/capsule/shim/output"
	"github.com/capsule-run/capsule/shim/shimapi"
)

// direct is the connection of a starter that takes frames.
type direct struct {
	e    *execution
	conn *os.File

	mu  sync.Mutex // one frame at a time
	buf []byte
}

// openDirect serves the starter until either ends.
func openDirect(e *execution, conn *os.File) {
	d := &direct{e: e, conn: conn}
	go d.obey()
	go d.tell()
}

// obey does what the starter wants until its end.
func (d *direct) obey() {
	defer close(d.e.lost)
	var wish [1]byte
	for {
		if n, err := d.conn.Read(wish[:]); n == 0 || err != nil {
			return
		}
		if wish[0] == shimapi.KillAll {
			d.e.cancel()
		} else {
			go d.e.signal(syscall.Signal(wish[0]), d.e.lost)
		}
	}
}

// tell sends the output and then the response.
func (d *direct) tell() {
	<-d.e.prepared
	var streams sync.WaitGroup
	for i, kind := range []byte{shimapi.FrameStdout, shimapi.FrameStderr} {
		if sub := d.e.takeHeld(i, true); sub != nil {
			streams.Go(func() { d.pass(kind, sub) })
		}
	}
	<-d.e.ended
	streams.Wait()
	response := d.e.response
	if len(response) > inlineMax {
		response = nil
	}
	_ = d.send(shimapi.FrameResponse, response) // a starter that is gone wants none
}

// pass sends one stream to its end, or to that of the connection.
func (d *direct) pass(kind byte, sub *output.Subscription) {
	defer sub.Close()
	for {
		c, err := sub.Next()
		if err != nil {
			return // the end; what could not be read back is told by the response
		}
		if d.send(kind, c.Data) != nil {
			return
		}
	}
}

func (d *direct) send(kind byte, data []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.buf = shimapi.AppendFrame(d.buf[:0], shimapi.Frame{Kind: kind, Data: data})
	_, err := d.conn.Write(d.buf)
	return err
}
