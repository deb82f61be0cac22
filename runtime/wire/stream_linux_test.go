package wire

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
)

// serve starts a server and gives a client of the real ttrpc.
func serve(t *testing.T, server *Server) (*ttrpc.Client, net.Conn) {
	t.Helper()
	path, listener := listen(t)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	client := ttrpc.NewClient(conn)
	t.Cleanup(func() {
		client.Close()
		listener.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return client, conn
}

// both is a method with several messages either way.
var both = &ttrpc.StreamDesc{StreamingClient: true, StreamingServer: true}

// only serves one method with several messages.
func only(conduct func(context.Context, *Stream) error) *Server {
	return &Server{
		Call: func(context.Context, string, string, Message) (Message, error) { return nil, nil },
		Stream: func(service, method string) func(context.Context, *Stream) error {
			if service != "a.Service" || method != "Both" {
				return nil
			}
			return conduct
		},
	}
}

func TestStreams(t *testing.T) {
	big := bytes.Repeat([]byte("x"), 1<<20)
	client, _ := serve(t, only(func(_ context.Context, s *Stream) error {
		for n := 0; ; n++ {
			m, err := s.Recv()
			if err == io.EOF {
				return s.Send(Message(nil).PutString(1, "end"), nil)
			}
			if err != nil {
				return err
			}
			if m.String(1) == "fail" {
				return &Status{Code: FailedPrecondition, Text: "as you wish"}
			}
			value := m.Message(2)
			if err := s.Send(Message(nil).PutString(1, m.String(1)).Open(2, len(value)), value); err != nil {
				return err
			}
		}
	}))
	for _, fails := range []bool{false, true} {
		s, err := client.NewStream(t.Context(), both, "a.Service", "Both", nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, value := range [][]byte{[]byte("v"), big, nil} {
			if err := s.SendMsg(&anypb.Any{TypeUrl: "u", Value: value}); err != nil {
				t.Fatal(err)
			}
			got := new(anypb.Any)
			if err := s.RecvMsg(got); err != nil || got.TypeUrl != "u" || !bytes.Equal(got.Value, value) {
				t.Errorf("%d bytes came as %q, %d bytes, %v", len(value), got.TypeUrl, len(got.Value), err)
			}
		}
		if fails {
			if err := s.SendMsg(&anypb.Any{TypeUrl: "fail"}); err != nil {
				t.Fatal(err)
			}
			if err := s.RecvMsg(new(anypb.Any)); status.Code(err) != codes.FailedPrecondition || status.Convert(err).Message() != "as you wish" {
				t.Errorf("%v", err)
			}
			continue
		}
		if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
		last := new(anypb.Any)
		if err := s.RecvMsg(last); err != nil || last.TypeUrl != "end" {
			t.Errorf("%q, %v", last.TypeUrl, err)
		}
		if err := s.RecvMsg(last); err != io.EOF {
			t.Errorf("after the end: %v", err)
		}
	}
}

// TestStreamThatIsFlooded ends the call whose client sends ahead of what may wait, and holds up no other.
func TestStreamThatIsFlooded(t *testing.T) {
	let := make(chan struct{})
	client, _ := serve(t, only(func(ctx context.Context, s *Stream) error {
		select {
		case <-let:
		case <-ctx.Done():
		}
		for {
			if _, err := s.Recv(); err != nil {
				return err
			}
		}
	}))
	s, err := client.NewStream(t.Context(), both, "a.Service", "Both", nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 * streamQueue {
		if err := s.SendMsg(&anypb.Any{Value: []byte("v")}); err != nil {
			t.Fatal(err)
		}
	}
	// Its answer comes after all that was sent before it has been read.
	if err := client.Call(t.Context(), "a.Service", "One", &anypb.Any{}, &anypb.Any{}); err != nil {
		t.Fatal(err)
	}
	close(let)
	if err := s.RecvMsg(new(anypb.Any)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("%v", err)
	}
}

// TestStreamOfALostClient ends the context of a call whose connection ends.
func TestStreamOfALostClient(t *testing.T) {
	ended := make(chan error, 1)
	began := make(chan struct{})
	client, conn := serve(t, only(func(ctx context.Context, s *Stream) error {
		close(began)
		_, err := s.Recv()
		ended <- errors.Join(err, ctx.Err(), s.Send(nil, nil))
		return err
	}))
	if _, err := client.NewStream(t.Context(), both, "a.Service", "Both", nil); err != nil {
		t.Fatal(err)
	}
	<-began
	conn.Close()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// TestShutdown lets calls end, and then ends their connections.
func TestShutdown(t *testing.T) {
	began, let := make(chan struct{}), make(chan struct{})
	server := &Server{Call: func(context.Context, string, string, Message) (Message, error) {
		close(began)
		<-let
		return Message(nil).PutString(1, "answer"), nil
	}}
	if server.Visited() {
		t.Error("visited before anybody came")
	}
	client, _ := serve(t, server)
	answered := make(chan error, 1)
	got := new(anypb.Any)
	go func() { answered <- client.Call(t.Context(), "a.Service", "One", &anypb.Any{}, got) }()
	<-began
	if !server.Visited() {
		t.Error("not visited")
	}
	down := make(chan struct{})
	go func() {
		server.Shutdown(t.Context())
		close(down)
	}()
	select {
	case <-down:
		t.Error("it did not wait for the call")
	case <-time.After(10 * time.Millisecond): // if it waits, it waits for ever
	}
	close(let)
	if err := <-answered; err != nil || got.TypeUrl != "answer" {
		t.Errorf("%q, %v", got.TypeUrl, err)
	}
	<-down
	if err := client.Call(t.Context(), "a.Service", "One", &anypb.Any{}, got); err == nil {
		t.Error("a server that is shut down answers")
	}
	// A connection that comes now is closed at once.
	a, b := net.Pipe()
	server.Converse(b)
	if _, err := a.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("%v", err)
	}
}

// TestShutdownIsBounded ends the connections of calls that do not end.
func TestShutdownIsBounded(t *testing.T) {
	began := make(chan struct{})
	server := only(func(ctx context.Context, s *Stream) error {
		close(began)
		_, err := s.Recv()
		return err
	})
	client, _ := serve(t, server)
	s, err := client.NewStream(t.Context(), both, "a.Service", "Both", nil)
	if err != nil {
		t.Fatal(err)
	}
	<-began
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	server.Shutdown(ctx)
	if err := s.RecvMsg(new(anypb.Any)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// TestNumbersOfCalls refuses what is even or not higher than before, and goes on.
func TestNumbersOfCalls(t *testing.T) {
	server := &Server{Call: func(context.Context, string, string, Message) (Message, error) { return nil, nil }}
	a, b := net.Pipe()
	go server.Converse(b)
	defer a.Close()
	call := Message(nil).PutString(1, "s").PutString(2, "m")
	for _, c := range []struct {
		number uint32
		fails  bool
	}{{1, false}, {1, true}, {2, true}, {5, false}, {3, true}, {7, false}} {
		if _, err := a.Write(appendFrame(nil, c.number, typeRequest, 0, call)); err != nil {
			t.Fatal(err)
		}
		f, err := readFrame(a)
		if err != nil || f.stream != c.number || (f.payload.Message(1).Uint(1) == uint64(InvalidArgument)) != c.fails {
			t.Errorf("%d: %+v, %v", c.number, f, err)
		}
	}
	// Data of a call that nobody has is dropped.
	for _, kind := range []byte{typeData, typeRequest} {
		if _, err := a.Write(appendFrame(nil, 9, kind, 0, call)); err != nil {
			t.Fatal(err)
		}
	}
	if f, err := readFrame(a); err != nil || f.stream != 9 || len(f.payload.Message(1)) != 0 {
		t.Errorf("%+v, %v", f, err)
	}
}

// TestSendWith has a descriptor come with its message, among others, at the real client.
func TestSendWith(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "client")
	c, err := net.FileConn(theirs)
	theirs.Close() // FileConn has its own copy
	if err != nil {
		t.Fatal(err)
	}
	conn := &taking{UnixConn: c.(*net.UnixConn)}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	server := only(func(_ context.Context, s *Stream) error {
		for i := range 3 {
			text := Message(nil).PutString(1, strings.Repeat("x", 1000))
			send := func() error { return s.Send(text, nil) }
			if i == 1 {
				send = func() error { return s.SendWith(text, w) }
			}
			if err := send(); err != nil {
				return err
			}
		}
		return nil
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Converse(os.NewFile(uintptr(fds[0]), "server"))
	}()
	client := ttrpc.NewClient(conn)
	s, err := client.NewStream(t.Context(), both, "a.Service", "Both", nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		m := new(anypb.Any)
		if err := s.RecvMsg(m); err != nil || len(m.TypeUrl) != 1000 {
			t.Errorf("%d bytes, %v", len(m.TypeUrl), err)
		}
	}
	if err := s.RecvMsg(new(anypb.Any)); err != io.EOF {
		t.Error(err)
	}
	client.Close()
	<-done
	if len(conn.came) != 1 {
		t.Fatalf("%d descriptors came", len(conn.came))
	}
	w.Close()
	other := os.NewFile(uintptr(conn.came[0]), "pipe")
	if _, err := other.WriteString("through"); err != nil {
		t.Error(err)
	}
	other.Close()
	if got, err := io.ReadAll(r); string(got) != "through" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	r.Close()
}

// TestSendWithNeedsASocket.
func TestSendWithNeedsASocket(t *testing.T) {
	ours, theirs := net.Pipe()
	refused := make(chan error, 1)
	server := only(func(_ context.Context, s *Stream) error {
		refused <- s.SendWith(nil, os.Stdin)
		return nil
	})
	go server.Converse(ours)
	client := ttrpc.NewClient(theirs)
	defer client.Close()
	if _, err := client.NewStream(t.Context(), both, "a.Service", "Both", nil); err != nil {
		t.Fatal(err)
	}
	if err := <-refused; err == nil {
		t.Error("a descriptor was sent on what is no socket")
	}
}

// taking is a connection that keeps the descriptors which come.
type taking struct {
	*net.UnixConn
	came []int
}

// Read implements net.Conn.
func (c *taking) Read(p []byte) (int, error) {
	control := make([]byte, 256)
	n, oob, _, _, err := c.ReadMsgUnix(p, control)
	messages, _ := unix.ParseSocketControlMessage(control[:oob]) // none: nothing came
	for i := range messages {
		if fds, err := unix.ParseUnixRights(&messages[i]); err == nil {
			c.came = append(c.came, fds...)
		}
	}
	return max(n, 0), err
}

// from is a connection that brings these bytes and takes all.
type from struct{ io.Reader }

func (from) Write(p []byte) (int, error) { return len(p), nil }

func (from) Close() error { return nil }

// FuzzConverse has a server read a whole connection: no bytes end the process, or keep
// the connection or a call of it from ending.
func FuzzConverse(f *testing.F) {
	both := Message(nil).PutString(1, "a.Service").PutString(2, "Both")
	data := appendFrame(nil, 1, typeData, 0, Message(nil).PutUint(1, 1))
	begin := appendFrame(nil, 1, typeRequest, 0, both)
	f.Add(append(begin, data...))
	f.Add(append(append(append(begin, data...), appendFrame(nil, 1, typeData, flagRemoteClosed|flagNoData)...), data...))
	f.Add(append(begin, bytes.Repeat(data, 2*streamQueue)...))
	f.Add(appendFrame(appendFrame(nil, 1, typeRequest, flagRemoteClosed, both), 3, typeRequest, 0, both.PutUint(4, 1)))
	f.Add(appendFrame(nil, 1, typeRequest, 0, Message(nil).PutString(1, "s").Put(3, Message{0x0b})))
	f.Add(appendFrame(data, 2, typeResponse, 0xff))
	f.Fuzz(func(t *testing.T, b []byte) {
		var calls sync.WaitGroup
		server := &Server{
			Call: func(context.Context, string, string, Message) (Message, error) { return nil, nil },
			Stream: func(string, string) func(context.Context, *Stream) error {
				calls.Add(1)
				return func(_ context.Context, s *Stream) error {
					defer calls.Done()
					for {
						m, err := s.Recv()
						if err != nil {
							return err
						}
						if err := s.Send(m, nil); err != nil {
							return err
						}
					}
				}
			},
		}
		server.Converse(from{bytes.NewReader(b)})
		calls.Wait()
		server.Shutdown(t.Context())
	})
}
