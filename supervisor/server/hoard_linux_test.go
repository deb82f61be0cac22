package server_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"

	"github.com/capsule-run/capsule/supervisor/api"
	supervisorv1 "github.com/capsule-run/capsule/supervisor/api/v1"
	"github.com/capsule-run/capsule/supervisor/api/wire"
	"github.com/capsule-run/capsule/supervisor/server"
)

// hoards are the ways in which one user tries to make a supervisor hold memory, as far
// as it lets him.
var hoards = map[string]func(address string) error{
	"calls": hoardCalls, "requests": hoardRequests, "frames": hoardFrames, "answers": hoardAnswers,
}

// wait is the frame of a call that waits for "theirs", with so much metadata, which the
// server holds for as long as the call is open.
func wait(stream uint32, metadata int) []byte {
	payload, err := proto.Marshal(&supervisorv1.WaitRequest{ExecutionId: "theirs"})
	if err != nil {
		panic(err) // a message of ours
	}
	r := &ttrpc.Request{Service: wire.Service, Method: "Wait", Payload: payload}
	if metadata > 0 {
		r.Metadata = []*ttrpc.KeyValue{{Key: "k", Value: strings.Repeat("v", metadata)}}
	}
	b, err := proto.Marshal(r)
	if err != nil {
		panic(err) // a message of ours
	}
	return frame(stream, 1, 0, b)
}

// connect is a connection on which a refused write or read is an error soon.
func connect(address string) (net.Conn, error) {
	conn, err := net.Dial("unix", address)
	if err == nil {
		err = conn.SetDeadline(time.Now().Add(patience / 4))
	}
	return conn, err
}

// answer reads one response; refused: it is an error.
func answer(conn net.Conn) (size int, refused bool, err error) {
	var header [10]byte
	if _, err := io.ReadFull(conn, header[:]); err != nil {
		return 0, false, err
	}
	message := make([]byte, binary.BigEndian.Uint32(header[:]))
	if _, err := io.ReadFull(conn, message); err != nil {
		return 0, false, err
	}
	var r ttrpc.Response
	if err := proto.Unmarshal(message, &r); err != nil {
		return 0, false, err
	}
	return len(message), r.Status != nil, nil
}

// hoardCalls opens more calls than 4 on two connections.
func hoardCalls(address string) error {
	var conns [2]net.Conn
	for i := range conns {
		conn, err := connect(address)
		if err != nil {
			return err
		}
		defer conn.Close()
		conns[i] = conn
		for n := range 3 {
			if _, err := conn.Write(wait(uint32(2*n+1), 0)); err != nil {
				return err
			}
		}
	}
	// Which of them is refused nobody knows.
	refusals := make(chan error, len(conns))
	for _, conn := range conns {
		go func() {
			_, refused, err := answer(conn)
			if err == nil && !refused {
				err = errors.New("it is answered")
			}
			refusals <- err
		}()
	}
	return <-refusals
}

// hoardRequests makes calls with more metadata than 1 MiB.
func hoardRequests(address string) error {
	conn, err := connect(address)
	if err != nil {
		return err
	}
	defer conn.Close()
	for n := range 2 {
		if _, err := conn.Write(wait(uint32(2*n+1), 600<<10)); err != nil {
			return err
		}
	}
	if _, refused, err := answer(conn); err != nil || !refused {
		return fmt.Errorf("the second call with 600 KiB: refused %v, %w", refused, err)
	}
	return nil
}

// hoardFrames begins more frames than 2 MiB and finishes none.
func hoardFrames(address string) error {
	ends := make(chan error, 4)
	for range cap(ends) {
		conn, err := connect(address)
		if err != nil {
			return err
		}
		defer conn.Close()
		part := wait(1, 1<<20)
		go func() {
			_, err := conn.Write(part[:len(part)-1])
			if err == nil {
				_, err = conn.Read(make([]byte, 1))
			}
			ends <- err
		}()
	}
	if err := <-ends; errors.Is(err, os.ErrDeadlineExceeded) || err == nil {
		return fmt.Errorf("4 MiB of frames that are not finished: %w", err)
	}
	return nil
}

// hoardAnswers asks for more answers than 4 MiB and reads none until all are made.
func hoardAnswers(address string) error {
	conn, err := connect(address)
	if err != nil {
		return err
	}
	defer conn.Close()
	const calls = 60
	for n := range calls {
		if _, err := conn.Write(wait(uint32(2*n+1), 0)); err != nil {
			return err
		}
	}
	fmt.Println("asked") // the server's side ends the execution
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
		return err
	}
	large := 0
	for range calls {
		size, refused, err := answer(conn)
		if err != nil || refused {
			return fmt.Errorf("refused %v, %w", refused, err)
		}
		if size > 1<<20 {
			large++
		}
	}
	// Four, and those that the socket and the server's writer had taken.
	if large == 0 || large > 8 {
		return fmt.Errorf("%d answers of a mebibyte wait for their reader", large)
	}
	return nil
}

// TestAHoarder: what one user can make the server hold is bounded over all his
// connections, and free again when he is gone.
func TestAHoarder(t *testing.T) {
	f := newFake()
	f.waiting = make(chan string, 1024)
	address, s := serve(t, f, func(o *server.Options) {
		o.Allowed = func(wire.Credentials) bool { return true }
		o.MaxRequestsPerUID, o.MaxAnswersPerUID = 1<<20, 4<<20
		o.MaxCallsPerUID = 4
	})
	roomy, sRoomy := serve(t, f, func(o *server.Options) {
		o.Allowed = func(wire.Credentials) bool { return true }
		o.MaxAnswersPerUID = 4 << 20
	})
	open(t, address)
	open(t, roomy)
	for range 2 {
		f.mu.Lock()
		e := &fakeRun{Summary: api.Summary{ID: "theirs", Owner: otherUID}, done: make(chan struct{}), stdout: bytes.Repeat([]byte("x"), 1<<20+1)}
		f.runs["theirs"] = e
		f.mu.Unlock()
		for _, how := range []string{"calls", "requests", "frames"} {
			if out := as(t, otherUID, otherUser+"="+address, otherUser+"_HOARDS="+how); out != "fine" {
				t.Errorf("%s: %s", how, out)
			}
			eventually(t, "the connections end", func() bool { return s.Connections() == 0 })
		}
		hoardAnswersOf(t, f, roomy, sRoomy)
		eventually(t, "the connections end", func() bool { return sRoomy.Connections() == 0 })
	}
}

// hoardAnswersOf lets the execution end when all wait for it, and the hoarder read when
// all answers are made.
func hoardAnswersOf(t *testing.T, f *fake, address string, s *server.Server) {
	t.Helper()
	for len(f.waiting) > 0 {
		<-f.waiting
	}
	cmd := command(t, otherUID, otherUser+"="+address, otherUser+"_HOARDS=answers")
	var out bytes.Buffer
	cmd.Stdout = &out
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 60 {
		<-f.waiting
	}
	f.end("theirs")
	eventually(t, "all answers are made", func() bool { return s.Calls() == 0 })
	if _, err := in.Write([]byte("\n")); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil || !slices.Contains(strings.Fields(out.String()), "fine") {
		t.Errorf("answers: %v, %s", err, out.String())
	}
}
