package server_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"

	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
	supervisorv1 "github.com/capsule-run/capsule/supervisor/api/v1"
	"github.com/capsule-run/capsule/supervisor/api/wire"
	"github.com/capsule-run/capsule/supervisor/client"
	"github.com/capsule-run/capsule/supervisor/server"
)

// frame is one ttrpc frame.
func frame(stream uint32, kind, flags byte, message []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(message)))
	b = binary.BigEndian.AppendUint32(b, stream)
	return append(append(b, kind, flags), message...)
}

// call is the frame of a request.
func call(t testing.TB, stream uint32, flags byte, method string, m proto.Message) []byte {
	t.Helper()
	payload, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	b, err := proto.Marshal(&ttrpc.Request{Service: wire.Service, Method: method, Payload: payload})
	if err != nil {
		t.Fatal(err)
	}
	return frame(stream, 1, flags, b)
}

func raw(t testing.TB, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// dialInTime connects to a server that allows a first frame less time than a busy machine
// may take for it.
func dialInTime(t testing.TB, address string) (c *client.Client) {
	t.Helper()
	eventually(t, "a first frame within the time for it", func() (done bool) {
		var err error
		if c, err = client.Dial(within(t), address); err != nil && !errors.Is(err, &fault.Fault{Code: fault.Unreachable}) {
			t.Fatal(err)
		}
		return err == nil
	})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// closed waits until the server has closed the connection.
func closed(t *testing.T, conn net.Conn) {
	t.Helper()
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection stays open")
	}
}

// TestMisbehaviourEndsItsConnection shows that it ends no other.
func TestMisbehaviourEndsItsConnection(t *testing.T) {
	f := newFake()
	address, _ := serve(t, f, func(o *server.Options) { o.FrameTimeout = 100 * time.Millisecond })
	c := dialInTime(t, address)
	e := start(t, c, &api.StartRequest{})
	open := call(t, 1, 2, "Attach", &supervisorv1.AttachRequest{ExecutionId: e.ID, Stdin: true})
	for name, bytes := range map[string][]byte{
		"nothing":                 nil,
		"an HTTP request":         []byte("GET / HTTP/1.1\r\nHost: capsule\r\n\r\n"),
		"ones":                    bytes.Repeat([]byte{0xff}, 1<<16),
		"an oversized frame":      {0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 1, 0},
		"a little oversized":      append([]byte{0, 0x40, 0, 1, 0, 0, 0, 1, 1, 0}, make([]byte, 4<<20)...),
		"half a header":           {0, 0, 0, 9, 0},
		"half a message":          {0, 0, 0, 9, 0, 0, 0, 1, 1, 0, 1, 2},
		"half a message on top":   append(call(t, 1, 0, "Info", &supervisorv1.InfoRequest{}), 0, 0, 0, 9, 0, 0, 0, 3, 1, 0, 1),
		"a response":              frame(1, 2, 0, nil),
		"an even stream":          frame(2, 1, 0, nil),
		"an oversized data frame": append(open, frame(1, 3, 0, make([]byte, wire.MaxStreamFrame+1))...),
	} {
		t.Run(name, func(t *testing.T) {
			conn := raw(t, address)
			_, _ = conn.Write(bytes) // the server may close before it has all
			closed(t, conn)
			if _, err := c.Info(within(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestDataOnACallWithOneRequest sends what ends the process of a server with
// ttrpc's generated methods.
func TestDataOnACallWithOneRequest(t *testing.T) {
	f := newFake()
	address, _ := serve(t, f, nil)
	c := dial(t, address)
	e := start(t, c, &api.StartRequest{})
	for _, flags := range []byte{0, 1, 4, 5} {
		conn := raw(t, address)
		both := append(call(t, 1, 0, "Wait", &supervisorv1.WaitRequest{ExecutionId: e.ID}), frame(1, 3, flags, nil)...)
		if _, err := conn.Write(both); err != nil {
			t.Fatal(err)
		}
		if flags&1 != 0 { // it is a cancellation
			if _, err := io.ReadFull(conn, make([]byte, 10)); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := c.Info(within(t)); err != nil {
		t.Error(err)
	}
}

// TestCallsWithoutReading sends requests and takes no answers.
func TestCallsWithoutReading(t *testing.T) {
	f := newFake()
	address, s := serve(t, f, func(o *server.Options) { o.MaxCalls = 8 })
	conn := raw(t, address)
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
	var err error
	sent := 0
	for ; err == nil && sent < 1e6; sent++ {
		_, err = conn.Write(call(t, uint32(2*sent+1), 0, "Info", &supervisorv1.InfoRequest{}))
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d calls: %v", sent, err)
	}
	if _, err := dial(t, address).Info(within(t)); err != nil {
		t.Error(err)
	}
	_ = conn.Close()
	eventually(t, "the connection is gone", func() bool { return s.Connections() == 1 })
}

func TestTooManyCalls(t *testing.T) {
	f := newFake()
	f.attach = endless
	address, _ := serve(t, f, func(o *server.Options) { o.MaxCalls, o.MaxStreams = 4, 2 })
	c := dial(t, address)
	e := start(t, c, &api.StartRequest{})
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	errs := make(chan error, 8)
	for range 3 {
		go func() { errs <- c.Attach(ctx, e.ID, &api.AttachOptions{Stdout: io.Discard}) }()
	}
	if err := <-errs; !errors.Is(err, &fault.Fault{Code: fault.OutOfRange}) {
		t.Error(err)
	}
	for range 3 {
		go func() { _, err := c.Wait(ctx, e.ID); errs <- err }()
	}
	if err := <-errs; !errors.Is(err, &fault.Fault{Code: fault.OutOfRange}) {
		t.Error(err)
	}
}

func TestTooManyConnections(t *testing.T) {
	f := newFake()
	address, s := serve(t, f, func(o *server.Options) { o.MaxConnections = 20 })
	for range 20 {
		raw(t, address)
	}
	eventually(t, "all are open", func() bool { return s.Connections() == 20 })
	if _, err := client.Dial(within(t), address); !errors.Is(err, &fault.Fault{Code: fault.TooManyExecutions}) {
		t.Error(err)
	}
	for range 100 { // more than are told why
		raw(t, address)
	}
}

func TestHalfOpenConnectionsEnd(t *testing.T) {
	f := newFake()
	address, s := serve(t, f, func(o *server.Options) { o.FrameTimeout = 100 * time.Millisecond })
	for i := range 200 {
		conn := raw(t, address)
		_, _ = conn.Write([]byte("\x00\x00\x00\x09\x00")[:i%6]) // some begin a frame
	}
	eventually(t, "all are gone", func() bool { return s.Connections() == 0 })
	idle := dialInTime(t, address)
	time.Sleep(300 * time.Millisecond) // not to wait for a state: it is the time in which nothing may happen
	if _, err := idle.Info(within(t)); err != nil {
		t.Error("an idle connection ends: ", err)
	}
}

func TestNotAllowed(t *testing.T) {
	f := newFake()
	address, _ := serve(t, f, func(o *server.Options) { o.Allowed = func(c wire.Credentials) bool { return c.Pid != os.Getpid() } })
	if _, err := client.Dial(within(t), address); !errors.Is(err, &fault.Fault{Code: fault.NotAuthorised}) {
		t.Error(err)
	}
}

func TestPanicsAreFaults(t *testing.T) {
	f := newFake()
	f.attach = func(context.Context, string, *api.AttachOptions) error { panic("attach") }
	f.events = nil // is called
	address, _ := serve(t, f, nil)
	c := dial(t, address)
	e := start(t, c, &api.StartRequest{})
	if err := c.Attach(within(t), e.ID, &api.AttachOptions{Stdout: io.Discard}); !errors.Is(err, &fault.Fault{Code: fault.SystemCall}) {
		t.Error(err)
	}
	if err := c.Events(within(t), 0, true, nil); !errors.Is(err, &fault.Fault{Code: fault.SystemCall}) {
		t.Error(err)
	}
	if _, err := c.Info(within(t)); err != nil {
		t.Error(err)
	}
}

// TestAMillionProblems gets a list that fits into a message.
func TestAMillionProblems(t *testing.T) {
	document := `{"command":["x"],` + strings.Repeat(`"z":1,`, 400e3) + `"y":2}`
	_, err := spec.DecodeRequest([]byte(document))
	f := newFake()
	address, _ := serve(t, f, nil)
	c := dial(t, address)
	f.mu.Lock()
	f.err = err
	f.mu.Unlock()
	_, err = c.Start(within(t), &api.StartRequest{Request: []byte(document)})
	var list fault.List
	if !errors.As(err, &list) || len(list) != 201 || list[0].Code != fault.UnknownField || list[0].Field != "/z" {
		t.Errorf("%d problems, %.200v", len(list), err)
	}
}

// TestLongLists shortens pages and commands until they fit.
func TestLongLists(t *testing.T) {
	f := newFake()
	for range 100 {
		f.page = append(f.page, api.Summary{ID: "a", Command: []string{"sh", strings.Repeat("x", 120<<10)}})
	}
	address, _ := serve(t, f, nil)
	c := dial(t, address)
	p, err := c.List(within(t), &api.Filter{})
	if err != nil || len(p.Executions) != 25 || p.Next != "25" {
		t.Errorf("%d executions, %v", len(p.Executions), err)
	}
	f.mu.Lock()
	f.page = []api.Summary{{Command: []string{strings.Repeat("x", 5<<20)}}}
	f.mu.Unlock()
	p, err = c.List(within(t), &api.Filter{})
	if err != nil || len(p.Executions[0].Command[0]) != 4<<10+3 {
		t.Error(err)
	}
}
