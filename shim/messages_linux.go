package shim

import (
	"context"

	"github.com/capsule-run/capsule/runtime/wire"
)

// The messages of shimapi/v1/shim.proto, which says what they mean, as far as the shim reads or
// writes them. Field numbers are its.

// serviceName is the name of the service on the wire.
const serviceName = "capsule.shim.v1.Shim"

const (
	streamStdout = 1
	streamStderr = 2
)

type createRequest struct {
	request            []byte
	streamStdin, start bool
	bundle             string
}

func readCreate(m wire.Message) *createRequest {
	return &createRequest{request: m.Message(1), streamStdin: m.Bool(2), start: m.Bool(3), bundle: m.String(4)}
}

type attachRequest struct {
	streams                    []uint64
	stdoutOffset, stderrOffset int64
	acknowledged               int32
	hold, noFollow             bool
	since                      int64
	times                      bool
	window                     int32
	pipe                       bool
}

func readAttach(m wire.Message) *attachRequest {
	return &attachRequest{streams: m.Uints(1), stdoutOffset: int64(m.Uint(2)), stderrOffset: int64(m.Uint(3)), acknowledged: int32(m.Uint(4)),
		hold: m.Bool(5), noFollow: m.Bool(6), since: int64(m.Uint(7)), times: m.Bool(8), window: int32(m.Uint(9)), pipe: m.Bool(10)}
}

type attachResponse struct {
	stream       uint64
	data         []byte
	offset, time int64
	pipe         uint64
}

// head is the message up to the content of data, which ends it.
func (r *attachResponse) head() wire.Message {
	m := make(wire.Message, 0, 40)
	m = m.PutUint(1, r.stream).PutUint(3, uint64(r.offset)).PutUint(4, uint64(r.time)).PutUint(5, r.pipe)
	if len(r.data) == 0 {
		return m
	}
	return m.Open(2, len(r.data))
}

type stateResponse struct {
	state, executionID string
	pid                int
	created            int64
	request            []byte
}

func (r *stateResponse) message() wire.Message {
	return wire.Message(nil).PutString(1, r.state).PutString(2, r.executionID).PutUint(3, uint64(r.pid)).PutUint(4, uint64(r.created)).Put(5, r.request)
}

type statsResponse struct {
	metrics           []byte
	memoryBytes, pids *int64
}

func (r *statsResponse) message() wire.Message {
	m := wire.Message(nil).Put(1, r.metrics)
	if r.memoryBytes != nil {
		m = m.PutPresent(2, uint64(*r.memoryBytes))
	}
	if r.pids != nil {
		m = m.PutPresent(3, uint64(*r.pids))
	}
	return m
}

type explainRequest struct {
	request []byte
	bundle  string
}

func readExplain(m wire.Message) *explainRequest {
	return &explainRequest{request: m.Message(1), bundle: m.String(2)}
}

type bundleRequest struct {
	action, dir, other string
	request            []byte
	executionID        string
}

func readBundle(m wire.Message) *bundleRequest {
	return &bundleRequest{action: m.String(1), dir: m.String(2), other: m.String(3), request: m.Message(4), executionID: m.String(5)}
}

// call answers the calls that have one message either way.
func (s *service) call(ctx context.Context, service, method string, m wire.Message) (wire.Message, error) {
	if service != serviceName {
		return nil, &wire.Status{Code: wire.Unimplemented, Text: "unknown service " + service}
	}
	none := wire.Message(nil)
	switch method {
	case "Create":
		ok, err := s.Create(ctx, readCreate(m))
		return none.PutBool(1, ok), err
	case "Start":
		ok, err := s.Start(ctx)
		return none.PutBool(1, ok), err
	case "Wait":
		response, err := s.Wait(ctx)
		return none.Put(1, response), err
	case "Kill":
		delivered, err := s.Kill(ctx, int32(m.Uint(1)), m.Bool(2))
		return none.PutBool(1, delivered), err
	case "State":
		return s.State(m.Bool(1)).message(), nil
	case "Stats":
		r, err := s.Stats(m.Bool(1))
		if err != nil {
			return nil, err
		}
		return r.message(), nil
	case "Explain":
		plan, refusal := s.Explain(readExplain(m))
		return none.PutString(1, plan).Put(2, refusal), nil
	case "Bundle":
		document, refusal := s.Bundle(readBundle(m))
		return none.Put(1, document).Put(2, refusal), nil
	case "Shutdown":
		s.shutdown()
		return none, nil
	}
	return nil, &wire.Status{Code: wire.Unimplemented, Text: "unknown method " + method}
}

// stream is what conducts the calls that have several messages.
func (s *service) stream(service, method string) func(context.Context, *wire.Stream) error {
	switch {
	case service != serviceName:
	case method == "Attach":
		return s.Attach
	case method == "WriteStdin":
		return s.WriteStdin
	}
	return nil
}

// server answers the calls of shim.proto.
func (s *service) server() *wire.Server { return &wire.Server{Call: s.call, Stream: s.stream} }
