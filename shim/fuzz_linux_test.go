package shim

import (
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/capsule-run/capsule/shim/layout"
	"github.com/capsule-run/capsule/shim/shimapi"
	shimv1 "github.com/capsule-run/capsule/shim/shimapi/v1"
	"github.com/capsule-run/capsule/spec/fault"
)

// frame is one of ttrpc's: length, stream, kind, flags, message.
func frame(stream uint32, kind, flags byte, message []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(message)))
	b = binary.BigEndian.AppendUint32(b, stream)
	return append(append(b, kind, flags), message...)
}

func request(t testing.TB, stream uint32, flags byte, method string, m proto.Message) []byte {
	t.Helper()
	payload, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	b, err := proto.Marshal(&ttrpc.Request{Service: serviceName, Method: method, Payload: payload})
	if err != nil {
		t.Fatal(err)
	}
	return frame(stream, 1, flags, b)
}

// overService is that of an execution that is over.
func overService(dir string) *service {
	e := newExecution(shimapi.Bootstrap{ExecutionID: "00000000-0000-4000-8000-000000000000", StateDir: layout.State(dir)})
	e.note(func(o *observation) { o.failure = fault.New(fault.Cancelled, "", "for the test") })
	e.response = []byte("{}")
	svc := newService(e, func() {})
	svc.create.Do(func() {})
	svc.start.Do(func() { close(svc.begun) })
	for _, c := range []chan struct{}{e.prepared, e.running, e.ended, e.gone} {
		close(c)
	}
	return svc
}

// FuzzConnection feeds bytes as a connection to a shim whose execution is over.
// The connection ends, and the shim answers the next one.
func FuzzConnection(f *testing.F) {
	svc := overService(f.TempDir())
	address := filepath.Join(f.TempDir(), "s")
	l, err := net.Listen("unix", address)
	if err != nil {
		f.Fatal(err)
	}
	listener, err := l.(*net.UnixListener).File()
	if err != nil {
		f.Fatal(err)
	}
	if err := unix.SetNonblock(int(listener.Fd()), true); err != nil { // Fd made it blocking
		f.Fatal(err)
	}
	go svc.server().Serve(listener) //nolint:errcheck // it ends with the test
	f.Cleanup(func() { listener.Close(); l.Close() })

	f.Add([]byte(nil))
	f.Add(frame(1, 1, 0, []byte{0xff}))
	f.Add(frame(1, 3, 0, nil))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 1, 0})
	f.Add(request(f, 1, 0, "Wait", &shimv1.WaitRequest{}))
	f.Add(append(request(f, 1, 0, "State", &shimv1.StateRequest{}), request(f, 3, 0, "Stats", &shimv1.StatsRequest{})...))
	f.Add(append(request(f, 1, 0, "Kill", &shimv1.KillRequest{Signal: 9}), request(f, 3, 0, "Kill", &shimv1.KillRequest{All: true})...))
	f.Add(request(f, 1, 0, "Create", &shimv1.CreateRequest{Request: []byte(`{"command":["true"]}`), Start: true}))
	f.Fuzz(func(t *testing.T, data []byte) {
		conn := dial(t, address)
		defer conn.Close()
		_, _ = conn.Write(data)               // it may be closed before the end
		_ = conn.(*net.UnixConn).CloseWrite() // likewise
		if _, err := io.ReadAll(conn); isTimeout(err) {
			t.Fatalf("the connection does not end after %x", data)
		}
		next := dial(t, address)
		defer next.Close()
		head := make([]byte, 10)
		_, err := next.Write(request(t, 1, 0, "State", &shimv1.StateRequest{}))
		if err == nil {
			_, err = io.ReadFull(next, head)
		}
		if err != nil || head[8] != 2 {
			t.Fatalf("the shim does not answer any more: %v, %x", err, head)
		}
	})
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", address)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	return conn
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}
