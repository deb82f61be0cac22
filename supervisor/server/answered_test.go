package server_test

import (
	"context"
	"encoding/binary"
	"io"
	"testing"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"

	"github.com/capsule-run/capsule/supervisor/api"
	supervisorv1 "github.com/capsule-run/capsule/supervisor/api/v1"
	"github.com/capsule-run/capsule/supervisor/api/wire"
)

// TestMisbehaviourIsAnswered sends what has frames but makes no sense.
func TestMisbehaviourIsAnswered(t *testing.T) {
	f := newFake()
	f.attach = func(ctx context.Context, _ string, _ *api.AttachOptions) error { <-ctx.Done(); return ctx.Err() }
	address, _ := serve(t, f, nil)
	c := dial(t, address)
	e := start(t, c, &api.StartRequest{})
	attach := func(m *supervisorv1.AttachRequest) []byte {
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return frame(1, 3, 0, b)
	}
	open := call(t, 1, 2, "Attach", &supervisorv1.AttachRequest{ExecutionId: e.ID, Stdin: true})
	var flood []byte
	for range wire.Window + 1 {
		flood = append(flood, attach(&supervisorv1.AttachRequest{StdinData: []byte("x")})...)
	}
	for name, c := range map[string]struct {
		send []byte
		code string
	}{
		"no request":              {frame(1, 1, 0, []byte{0xff, 0xff}), ""},
		"no such call":            {call(t, 1, 0, "Shutdown", &supervisorv1.InfoRequest{}), ""},
		"a broken message":        {frame(1, 1, 0, append(call(t, 1, 0, "Wait", &supervisorv1.InfoRequest{})[10:], 0x1a, 2, 0xff, 0xff)), "E1001"},
		"data for no stream":      {frame(7, 3, 0, nil), ""},
		"a signal out of range":   {call(t, 1, 0, "Kill", &supervisorv1.KillRequest{ExecutionId: e.ID, Signal: 65}), "E1003"},
		"a negative offset":       {call(t, 1, 2, "Attach", &supervisorv1.AttachRequest{ExecutionId: e.ID, StdoutOffset: -1}), "E1003"},
		"an unknown stream":       {call(t, 1, 2, "Attach", &supervisorv1.AttachRequest{ExecutionId: e.ID, Streams: []supervisorv1.Stream{9}}), "E1001"},
		"too much acknowledged":   {append(open, attach(&supervisorv1.AttachRequest{Acknowledged: 1})...), "E1003"},
		"a negative number of it": {append(open, attach(&supervisorv1.AttachRequest{Acknowledged: -1})...), "E1003"},
		"stdin beyond the window": {append(open, flood...), "E1003"},
		"a large piece of stdin":  {append(open, attach(&supervisorv1.AttachRequest{StdinData: make([]byte, 129<<10)})...), "E1003"},
		"stdin after its end": {append(append(open, attach(&supervisorv1.AttachRequest{StdinEnd: true})...),
			attach(&supervisorv1.AttachRequest{StdinEnd: true})...), "E1001"},
	} {
		t.Run(name, func(t *testing.T) {
			conn := raw(t, address)
			if _, err := conn.Write(c.send); err != nil {
				t.Fatal(err)
			}
			var header [10]byte
			if _, err := io.ReadFull(conn, header[:]); err != nil {
				t.Fatal(err)
			}
			message := make([]byte, binary.BigEndian.Uint32(header[:4]))
			if _, err := io.ReadFull(conn, message); err != nil {
				t.Fatal(err)
			}
			var r ttrpc.Response
			if err := proto.Unmarshal(message, &r); err != nil || header[8] != 2 || r.Status.GetCode() == 0 {
				t.Fatalf("%v: %v %v", header, &r, err)
			}
			var detail supervisorv1.Fault
			if len(r.Status.Details) > 0 {
				if err := r.Status.Details[0].UnmarshalTo(&detail); err != nil {
					t.Error(err)
				}
			}
			want(t, "code", detail.Code, c.code)
		})
	}
	if _, err := c.Info(within(t)); err != nil {
		t.Error(err)
	}
}
