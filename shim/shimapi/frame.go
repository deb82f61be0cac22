package shimapi

import (
	"encoding/binary"
	"io"

	"github.com/capsule-run/capsule/spec/fault"
)

// A direct connection, after the bootstrap message:
//
//	starter                           shim
//	   | <--- FrameStdout, bytes ------ |   as they come; nothing is left out
//	   | <--- FrameStderr, bytes ------ |
//	   | ---- one byte ---------------> |   a signal's number, for the command
//	   | ---- KillAll ----------------> |   every process is to end
//	   | <--- FrameResponse, JSON ----- |   after all output; the last
//	   | ---- end --------------------> |   the result is delivered, or the starter has died
//
// Nothing is acknowledged: a starter that does not read holds the command's
// output up.

// Frame is one message of a shim on a direct connection: a byte for its kind, the
// length of its data in four bytes, the lowest first, and the data.
type Frame struct {
	Kind byte
	// Data is lent by FrameReader.Next until its next call.
	Data []byte
}

// The kinds of frames.
const (
	FrameStdout byte = 'o'
	FrameStderr byte = 'e'
	// FrameResponse has spec.Response as JSON; no data: read it from the record.
	FrameResponse byte = 'r'
)

// KillAll is what a starter writes to end every process of the sandbox.
const KillAll byte = 0xff

// frameHead is the size of what is before the data, frameMax bounds the data.
const (
	frameHead = 5
	frameMax  = 4 << 20
)

// AppendFrame appends a frame to buf.
func AppendFrame(buf []byte, f Frame) []byte {
	buf = append(buf, f.Kind)
	buf = binary.LittleEndian.AppendUint32(buf, uint32(len(f.Data)))
	return append(buf, f.Data...)
}

// FrameReader reads the frames of a shim.
type FrameReader struct {
	r   io.Reader
	buf []byte
	// buf[from:to] is read and not handed out.
	from, to int
}

// frameBuffer holds what most executions send in all.
const frameBuffer = 16 << 10

// NewFrameReader makes a reader of frames.
func NewFrameReader(r io.Reader) *FrameReader {
	return &FrameReader{r: r, buf: make([]byte, frameBuffer)}
}

// Next reads a frame. io.EOF: the connection ended before it.
func (f *FrameReader) Next() (Frame, error) {
	if err := f.fill(frameHead); err != nil {
		return Frame{}, err
	}
	kind, n := f.buf[f.from], binary.LittleEndian.Uint32(f.buf[f.from+1:])
	if n > frameMax {
		return Frame{}, fault.New(fault.InvalidValue, "read frame", "it is too long")
	}
	f.from += frameHead
	if err := f.fill(int(n)); err != nil {
		return Frame{}, err
	}
	data := f.buf[f.from : f.from+int(n)]
	f.from += int(n)
	return Frame{kind, data}, nil
}

// fill reads until n bytes are there.
func (f *FrameReader) fill(n int) error {
	if f.from+n > len(f.buf) {
		buf := f.buf
		if n > len(buf) {
			buf = make([]byte, n)
		}
		f.to = copy(buf, f.buf[f.from:f.to])
		f.buf, f.from = buf, 0
	}
	for f.to-f.from < n {
		m, err := f.r.Read(f.buf[f.to:])
		f.to += m
		if err != nil && f.to-f.from < n {
			return err
		}
	}
	return nil
}
