package wire

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// dialled is our client of the real server, with a service that is made of streams.
func dialled(t *testing.T, streams map[string]ttrpc.StreamHandler) *Conn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	desc := &ttrpc.ServiceDesc{Streams: map[string]ttrpc.Stream{}}
	for name, handler := range streams {
		one := name == "One" || name == "Hang" || name == "Fail"
		desc.Streams[name] = ttrpc.Stream{Handler: handler, StreamingClient: !one, StreamingServer: !one}
	}
	server.RegisterService("a.Service", desc)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(t.Context(), listener) // it is closed below
	}()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c := NewConn(conn)
	t.Cleanup(func() {
		_ = c.Close()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		<-served
	})
	return c
}

// echo answers one message with itself.
func echo(_ context.Context, s ttrpc.StreamServer) (any, error) {
	m := new(wrapperspb.StringValue)
	return m, s.RecvMsg(m)
}

// echoes answers each message with itself.
func echoes(_ context.Context, s ttrpc.StreamServer) (any, error) {
	for {
		m := new(wrapperspb.StringValue)
		if err := s.RecvMsg(m); err != nil {
			return nil, nil // io.EOF: an end without an error
		}
		if err := s.SendMsg(m); err != nil {
			return nil, err
		}
	}
}

func text(s string) Message { return Message(nil).PutString(1, s) }

// TestConnCalls has calls of one message, of which one takes for ever and is given up.
func TestConnCalls(t *testing.T) {
	begun, told := make(chan struct{}), make(chan error, 1)
	c := dialled(t, map[string]ttrpc.StreamHandler{
		"One": echo,
		"Hang": func(_ context.Context, s ttrpc.StreamServer) (any, error) {
			m := new(wrapperspb.StringValue)
			if err := s.RecvMsg(m); err != nil {
				return nil, err
			}
			close(begun)
			told <- s.RecvMsg(m)
			return m, nil
		},
		"Fail": func(context.Context, ttrpc.StreamServer) (any, error) {
			st := status.New(codes.NotFound, "no such thing").Proto()
			detail, err := anypb.New(wrapperspb.String("why"))
			if err != nil {
				return nil, err
			}
			st.Details = append(st.Details, detail)
			return nil, status.ErrorProto(st)
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	hung := make(chan error)
	go func() {
		_, err := c.Call(ctx, "a.Service", "Hang", text("x"))
		hung <- err
	}()
	<-begun
	for _, want := range []string{"", "a", "b"} {
		if m, err := c.Call(t.Context(), "a.Service", "One", text(want)); err != nil || m.String(1) != want {
			t.Errorf("%q: %q, %v", want, m, err)
		}
	}
	cancel()
	if err := <-hung; !errors.Is(err, context.Canceled) {
		t.Errorf("a call that was given up: %v", err)
	}
	if err := <-told; err != io.EOF {
		t.Errorf("the service of a call that was given up: %v", err)
	}
	var st *Status
	if _, err := c.Call(t.Context(), "a.Service", "Fail", nil); !errors.As(err, &st) || st.Code != NotFound || st.Text != "no such thing" ||
		len(st.Details) != 1 || st.Details[0].Message(2).String(1) != "why" {
		t.Errorf("%v", err)
	}
	if _, err := c.Call(t.Context(), "a.Service", "One", make(Message, largest)); !errors.As(err, &st) || st.Code != ResourceExhausted {
		t.Errorf("a message that is too large: %v", err)
	}
	if _, err := c.Call(t.Context(), "a.Service", "None", nil); !errors.As(err, &st) || st.Code != Unimplemented {
		t.Errorf("a method that is not there: %v", err)
	}
}

// TestConnStreams has calls of several messages, the first of them empty, in the request or
// behind it.
func TestConnStreams(t *testing.T) {
	c := dialled(t, map[string]ttrpc.StreamHandler{"Many": echoes})
	for _, first := range []Message{nil, {}, text("first")} {
		s, err := c.Open(t.Context(), "a.Service", "Many", first, 3)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"a", "b"}
		for _, w := range want {
			if err := s.Send(text(w)); err != nil {
				t.Fatal(err)
			}
		}
		if first != nil {
			want = append([]string{first.String(1)}, want...)
		}
		for _, w := range want {
			if m, err := s.Recv(); err != nil || m.String(1) != w {
				t.Errorf("%q: %q, %v", w, m, err)
			}
		}
		s.CloseSend()
		s.CloseSend() // once more, which says nothing
		if err := s.Send(text("late")); err != ErrClosed {
			t.Errorf("behind the end: %v", err)
		}
		if _, err := s.Recv(); err != io.EOF {
			t.Errorf("the end: %v", err)
		}
	}
}

// TestConnFlood has a call whose answers nobody takes. It holds up no other.
func TestConnFlood(t *testing.T) {
	ours, theirs := net.Pipe()
	c := NewConn(ours)
	defer c.Close()
	served := make(chan error, 1)
	go func() {
		served <- func() error {
			many, err := readFrame(theirs)
			for range 3 {
				if err == nil {
					_, err = theirs.Write(appendFrame(nil, many.stream, typeData, 0, text("x")))
				}
			}
			if err != nil {
				return err
			}
			one, err := readFrame(theirs)
			if err == nil {
				_, err = theirs.Write(appendFrame(nil, one.stream, typeResponse, 0, Message(nil).Put(2, text("y"))))
			}
			return err
		}()
	}()
	s, err := c.Open(t.Context(), "a.Service", "Many", nil, 2)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := c.Call(t.Context(), "a.Service", "One", nil); err != nil || m.String(1) != "y" {
		t.Fatalf("%q, %v", m, err)
	}
	for range 2 {
		if _, err := s.Recv(); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Recv(); err != ErrFlood {
		t.Errorf("%v", err)
	}
	if err := s.Send(nil); err != ErrClosed {
		t.Errorf("behind the end: %v", err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// TestConnLost has a call that is under way when the server goes, and one after.
func TestConnLost(t *testing.T) {
	ours, theirs := net.Pipe()
	c := NewConn(ours)
	go func() {
		if f, err := readFrame(theirs); err == nil {
			_, _ = theirs.Write(appendFrame(nil, f.stream, typeData, 0, text("y"))) // Recv tells
		}
		_ = theirs.Close()
	}()
	s, err := c.Open(t.Context(), "a.Service", "Many", text("x"), 2)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := s.Recv(); err != nil || m.String(1) != "y" {
		t.Errorf("%q, %v", m, err)
	}
	if _, err := s.Recv(); err != ErrClosed {
		t.Errorf("%v", err)
	}
	<-c.Ended()
	if _, err := c.Call(t.Context(), "a.Service", "One", nil); err != ErrClosed {
		t.Errorf("%v", err)
	}
	_ = c.Close() // once more
}

// FuzzConn reads what a server may send.
func FuzzConn(f *testing.F) {
	f.Add(appendFrame(nil, 1, typeResponse, 0, Message(nil).Put(2, text("x"))))
	f.Add(appendFrame(appendFrame(nil, 1, typeData, 0, text("x")), 1, typeData, flagRemoteClosed|flagNoData))
	f.Add(appendFrame(nil, 1, typeResponse, 0, Message(nil).Put(1, Message(nil).PutUint(1, 5).PutString(2, "x").PutAny(3, "u", nil))))
	f.Fuzz(func(t *testing.T, data []byte) {
		ours, theirs := net.Pipe()
		c := NewConn(ours)
		go func() { _, _ = io.Copy(io.Discard, theirs) }() // it ends with the pipe
		s, err := c.Open(t.Context(), "s", "m", nil, 2)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_, _ = theirs.Write(data) // the reader may have gone
			_ = theirs.Close()
		}()
		<-c.Ended()
		for err == nil {
			_, err = s.Recv()
		}
	})
}

// TestConnWaitsForNobody: calls that are bounded end in their time although the service reads
// nothing, and leave nothing behind.
func TestConnWaitsForNobody(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := net.Dial("unix", path) // which nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	c := NewConn(conn)
	for range 400 { // more than a socket holds
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		_, err := c.Call(ctx, "a.Service", "One", text("x"))
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	}
	c.mu.Lock()
	if len(c.calls) != 0 {
		t.Errorf("%d calls are kept", len(c.calls))
	}
	c.mu.Unlock()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// TestServerHearsThatACallIsGivenUp: one of one message too, by its client or by its deadline.
func TestServerHearsThatACallIsGivenUp(t *testing.T) {
	path, listener := listen(t)
	begun, ended, served := make(chan struct{}), make(chan error), make(chan error)
	server := Server{Call: func(ctx context.Context, _, _ string, _ Message) (Message, error) {
		begun <- struct{}{}
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	}}
	go func() { served <- server.Serve(listener) }()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c := NewConn(conn)
	ctx, cancel := context.WithCancel(t.Context())
	given := make(chan error)
	go func() {
		_, err := c.Call(ctx, "a.Service", "Hang", nil)
		given <- err
	}()
	<-begun
	cancel()
	if err := <-given; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	// The deadline is the service's as well: nobody reads what this client would say.
	late, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	call, err := c.Open(late, "a.Service", "Hang", text("x"), 1)
	if err != nil {
		t.Fatal(err)
	}
	<-begun
	if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if _, err := call.Recv(); err == nil {
		t.Error("a call that was given up has an answer")
	}
	_ = c.Close()
	listener.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// TestConnTakesNoDamageForSuccess: a status that cannot be read is an error.
func TestConnTakesNoDamageForSuccess(t *testing.T) {
	if err := readStatus(Message{0xff, 0xff}); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
}
