package shimapi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func TestFrames(t *testing.T) {
	long := bytes.Repeat([]byte("0123456789"), 3*frameBuffer/10)
	frames := []Frame{{FrameStdout, []byte("out")}, {FrameStderr, long}, {FrameStdout, nil}, {FrameStderr, []byte("err")}, {FrameResponse, long}}
	var wire []byte
	for _, f := range frames {
		wire = AppendFrame(wire, f)
	}
	readers := map[string]io.Reader{"whole": bytes.NewReader(wire), "bytes": iotest.OneByteReader(bytes.NewReader(wire)),
		"end with data": iotest.DataErrReader(bytes.NewReader(wire))}
	for name, r := range readers {
		from := NewFrameReader(r)
		for i, want := range frames {
			got, err := from.Next()
			if err != nil || got.Kind != want.Kind || !bytes.Equal(got.Data, want.Data) {
				t.Fatalf("%s, frame %d: kind %c with %d bytes, %v", name, i, got.Kind, len(got.Data), err)
			}
		}
		if _, err := from.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: after the last: %v, not io.EOF", name, err)
		}
	}
}

// TestFrameCutOff: a shim that dies in a frame has not sent it.
func TestFrameCutOff(t *testing.T) {
	wire := AppendFrame(nil, Frame{FrameResponse, []byte("{}")})
	for n := range wire {
		if f, err := NewFrameReader(bytes.NewReader(wire[:n])).Next(); err == nil {
			t.Errorf("%d of %d bytes are a frame of kind %c with %q", n, len(wire), f.Kind, f.Data)
		}
	}
}

func TestFrameTooLong(t *testing.T) {
	wire := binary.LittleEndian.AppendUint32([]byte{FrameStdout}, frameMax+1)
	if _, err := NewFrameReader(bytes.NewReader(append(wire, make([]byte, frameMax+1)...))).Next(); err == nil {
		t.Error("accepted")
	}
}
