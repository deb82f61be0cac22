package server_test

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/capsule-run/capsule/supervisor/api"
	supervisorv1 "github.com/capsule-run/capsule/supervisor/api/v1"
	"github.com/capsule-run/capsule/supervisor/server"
)

// FuzzConnection feeds bytes as a connection.
func FuzzConnection(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(frame(1, 1, 0, []byte{0xff}))
	f.Add(frame(1, 3, 0, nil))
	open := call(f, 1, 2, "Attach", &supervisorv1.AttachRequest{ExecutionId: "a", Stdin: true})
	f.Add(append(open, frame(1, 3, 0, []byte{0x3a, 1, 'x'})...))
	f.Add(append(call(f, 1, 0, "Wait", &supervisorv1.WaitRequest{ExecutionId: "a"}), frame(1, 3, 1, nil)...))
	f.Add(append(call(f, 1, 0, "Start", &supervisorv1.StartRequest{KillOnDisconnect: true}), 0, 0))
	f.Add(call(f, 3, 2, "Events", &supervisorv1.EventsRequest{}))
	back := newFake()
	back.events = func(_ context.Context, tell func(api.Event) error) error { return tell(api.Event{}) }
	address, s := serve(f, back, func(o *server.Options) { o.TakeoverTimeout = time.Millisecond })
	start(f, dial(f, address), &api.StartRequest{ID: "a"})
	go func() {
		for range back.kills { //nolint:revive // only to make room
		}
	}()
	f.Fuzz(func(t *testing.T, data []byte) {
		conn, err := net.Dial("unix", address)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write(data) // it may be closed before the end
		_ = conn.(*net.UnixConn).CloseWrite()
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
		eventually(t, "the connection is gone", func() bool { return s.Connections() <= 1 })
	})
}
