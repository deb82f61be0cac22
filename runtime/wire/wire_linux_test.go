package wire

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// listen makes a socket for Serve.
func listen(t *testing.T) (path string, f *os.File) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	}
	if err == nil {
		err = unix.Listen(fd, 10)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path, os.NewFile(uintptr(fd), path)
}

// TestClientOfTtrpc has the real client call our server.
func TestClientOfTtrpc(t *testing.T) {
	path, listener := listen(t)
	served := make(chan error)
	go func() {
		server := Server{Call: func(_ context.Context, service, method string, m Message) (Message, error) {
			switch method {
			case "Fail":
				return nil, &Status{Code: NotFound, Text: "no such thing"}
			case "Torn":
				return nil, &Status{Code: AlreadyExists, Text: "/a/\xff" + strings.Repeat("x", largest)}
			case "Odd":
				return nil, errors.New("odd")
			}
			return Message(nil).PutString(1, service+"/"+method).Put(2, m.Message(2)), nil
		}}
		served <- server.Serve(listener)
	}()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	client := ttrpc.NewClient(conn)
	call := func(method string, value []byte) (*anypb.Any, error) {
		answer := new(anypb.Any)
		err := client.Call(t.Context(), "a.Service", method, &anypb.Any{TypeUrl: "url", Value: value}, answer)
		return answer, err
	}
	big := bytes.Repeat([]byte("x"), 3<<20)
	for _, value := range [][]byte{nil, []byte("value"), big} {
		if answer, err := call("Echo", value); err != nil || answer.TypeUrl != "a.Service/Echo" || !bytes.Equal(answer.Value, value) {
			t.Errorf("echo of %d bytes: %v, %d bytes, %v", len(value), answer.TypeUrl, len(answer.Value), err)
		}
	}
	if _, err := call("Fail", nil); status.Code(err) != codes.NotFound || status.Convert(err).Message() != "no such thing" {
		t.Errorf("%v", err)
	}
	if _, err := call("Odd", nil); status.Code(err) != codes.Unknown {
		t.Errorf("%v", err)
	}
	// A name of a file may be any bytes, and long, which a client would refuse to read.
	if _, err := call("Torn", nil); status.Code(err) != codes.AlreadyExists || !strings.HasPrefix(status.Convert(err).Message(), "/a/\uFFFDxxx") {
		t.Errorf("%.200v", err)
	}
	client.Close()
	listener.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// TestServerOfTtrpc has our client call the real server.
func TestServerOfTtrpc(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan *anypb.Any, 10)
	server.Register("a.Service", map[string]ttrpc.Method{"Take": func(_ context.Context, unmarshal func(any) error) (any, error) {
		m := new(anypb.Any)
		if err := unmarshal(m); err != nil {
			return nil, err
		}
		if m.TypeUrl == "bad" {
			return nil, status.Error(codes.AlreadyExists, "twice")
		}
		got <- m
		return m, nil
	}})
	go func() { _ = server.Serve(t.Context(), listener) }() // it is closed below
	c := Client{Path: path}
	defer c.Close()
	for range 3 { // on one connection
		if err := c.Call("a.Service", "Take", Message(nil).PutString(1, "url").Put(2, Message("v")), time.Minute); err != nil {
			t.Fatal(err)
		}
		if m := <-got; m.TypeUrl != "url" || string(m.Value) != "v" {
			t.Errorf("%v", m)
		}
	}
	var refused *Status
	if err := c.Call("a.Service", "Take", Message(nil).PutString(1, "bad"), time.Minute); !errors.As(err, &refused) || refused.Code != AlreadyExists {
		t.Errorf("%v", err)
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Call("a.Service", "Take", nil, time.Minute); err == nil {
		t.Error("a server that is gone answers")
	}
}

// TestMessages compares with what generated code writes and reads.
func TestMessages(t *testing.T) {
	at := time.Unix(1700000000, 5)
	want, err := proto.Marshal(&anypb.Any{TypeUrl: "u", Value: []byte{1, 2}})
	if err != nil {
		t.Fatal(err)
	}
	if got := Message(nil).PutAny(7, "u", Message{1, 2}).Message(7); !bytes.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
	stamp := new(timestamppb.Timestamp)
	if err := proto.Unmarshal(Message(nil).PutTime(3, at).Message(3), stamp); err != nil || !stamp.AsTime().Equal(at) {
		t.Errorf("%v, %v", stamp, err)
	}
	m := Message(nil).PutUint(1, 300).PutString(2, "a").PutString(2, "b").PutBool(3, true).PutBool(4, false)
	if m.Uint(1) != 300 || m.String(2) != "b" || !m.Bool(3) || m.Bool(4) || m.Uint(9) != 0 || m.Check() != nil {
		t.Errorf("%x", m)
	}
	// A number in the place of text, and text in the place of a number, are others' fields.
	if m := Message(nil).PutString(1, "s").PutUint(1, 5).PutUint(2, 7).PutString(2, "t"); m.String(1) != "s" || m.Uint(2) != 7 || m.Uint(1) != 5 {
		t.Errorf("%x", m)
	}
	for _, bad := range []Message{{0x08}, {0x0a, 5, 'x'}, {0x0b}, {0}, {0x0d, 1}, bytes.Repeat([]byte{0xff}, 11)} {
		if bad.Check() == nil {
			t.Errorf("%x is a message", bad)
		}
	}
}

// FuzzFrame reads what anybody may send, and holds what is read to what protobuf says.
func FuzzFrame(f *testing.F) {
	f.Add(appendFrame(nil, 1, typeRequest, 0, Message(nil).PutString(1, "s").PutString(2, "m").Put(3, Message(nil).PutUint(1, 5))))
	f.Add(appendFrame(nil, 1, typeRequest, 0, Message(nil).PutString(1, "s").PutUint(1, 5)))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		read, err := readFrame(bytes.NewReader(b))
		if err != nil {
			return
		}
		m := read.payload
		for field := range 12 {
			_, _, _, _ = m.String(field), m.Uint(field), m.Message(field), m.Uints(field)
		}
		if bytes.Contains(m, []byte{0x0b}) || bytes.Contains(m, []byte{0x0c}) {
			return // groups, which protobuf still reads and we do not
		}
		any := new(anypb.Any)
		if proto.Unmarshal(m, any) == nil && any.TypeUrl != "" && any.TypeUrl != m.String(1) {
			t.Errorf("%x: field 1 is %q, not %q", m, m.String(1), any.TypeUrl)
		}
	})
}
