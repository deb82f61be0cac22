package wire

import (
	"encoding/binary"
	"io"
	"slices"
)

// The types of a frame.
const (
	typeRequest  = 1
	typeResponse = 2
	typeData     = 3
)

// The flags of a frame of data; a request that opens a call of several messages may have
// the first.
const (
	flagRemoteClosed = 1 // the sender sends nothing more
	flagRemoteOpen   = 2 // of a request: the sender may send more
	flagNoData       = 4 // the payload is no message
)

const (
	headerSize = 10
	// largest is what ttrpc allows a payload to have.
	largest = 4 << 20
)

// frame is one of ttrpc's.
type frame struct {
	stream      uint32
	kind, flags byte
	payload     Message
}

// readFrame reads one frame. io.EOF: there is no further one.
func readFrame(r io.Reader) (f frame, err error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return f, err
	}
	size := binary.BigEndian.Uint32(header[:])
	f.stream, f.kind, f.flags = binary.BigEndian.Uint32(header[4:]), header[8], header[9]
	if size > largest {
		return f, ErrMalformed
	}
	f.payload = make(Message, size)
	if _, err = io.ReadFull(r, f.payload); err != nil {
		return f, err
	}
	return f, f.payload.Check()
}

// appendFrame appends a frame whose payload comes in parts.
func appendFrame(b []byte, stream uint32, kind, flags byte, parts ...[]byte) []byte {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	b = slices.Grow(b, headerSize+size)
	b = binary.BigEndian.AppendUint32(b, uint32(size))
	b = binary.BigEndian.AppendUint32(b, stream)
	b = append(b, kind, flags)
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// keptBuffer is the largest buffer that stays with a connection, in bytes.
const keptBuffer = 128 << 10
