package wire

import (
	"encoding/binary"
	"errors"
	"iter"
	"time"
)

// Message is an encoded Protocol Buffers message that Check has found well-formed. A
// field that is absent is zero; of one that must not be repeated the last counts.
type Message []byte

// The wire types of protobuf.dev/programming-guides/encoding.
const (
	varint    = 0
	fixed64   = 1
	delimited = 2
	fixed32   = 5
)

// ErrMalformed is bytes that are no message.
var ErrMalformed = errors.New("malformed message")

// field splits the first field off: its number and wire type, the value of a number or the
// bytes.
func (m Message) field() (number int, kind byte, value uint64, data []byte, rest Message, err error) {
	tag, n := binary.Uvarint(m)
	if n <= 0 || tag>>3 == 0 || tag>>3 > 1<<29-1 {
		return 0, 0, 0, nil, nil, ErrMalformed
	}
	number, kind, rest = int(tag>>3), byte(tag&7), m[n:]
	switch kind {
	case varint:
		if value, n = binary.Uvarint(rest); n <= 0 {
			return 0, 0, 0, nil, nil, ErrMalformed
		}
		return number, kind, value, nil, rest[n:], nil
	case fixed64, fixed32:
		if n = 8; kind == fixed32 {
			n = 4
		}
		if len(rest) < n {
			return 0, 0, 0, nil, nil, ErrMalformed
		}
		return number, kind, 0, nil, rest[n:], nil // no message here has one
	case delimited:
		size, n := binary.Uvarint(rest)
		if n <= 0 || size > uint64(len(rest)-n) {
			return 0, 0, 0, nil, nil, ErrMalformed
		}
		return number, kind, 0, rest[n : n+int(size)], rest[n+int(size):], nil
	}
	return 0, 0, 0, nil, nil, ErrMalformed
}

// Check tells whether m is a message. What its fields of bytes hold is not looked at.
func (m Message) Check() error {
	for len(m) > 0 {
		var err error
		if _, _, _, _, m, err = m.field(); err != nil {
			return err
		}
	}
	return nil
}

// Each gives the values of one field of bytes in their order. One of another wire type is
// another field, as for every reader of protobuf. Malformed bytes end it.
func (m Message) Each(field int) iter.Seq[Message] {
	return func(yield func(Message) bool) {
		for len(m) > 0 {
			number, kind, _, data, rest, err := m.field()
			if err != nil || number == field && kind == delimited && !yield(data) {
				return
			}
			m = rest
		}
	}
}

// Message is a field that is a message itself, or bytes.
func (m Message) Message(field int) (last Message) {
	for data := range m.Each(field) {
		last = data
	}
	return last
}

// String is a field of text.
func (m Message) String(field int) string { return string(m.Message(field)) }

// Uint is a field that is a number or an enumeration.
func (m Message) Uint(field int) (last uint64) {
	for len(m) > 0 {
		number, kind, value, _, rest, err := m.field()
		if err != nil {
			return last
		}
		if number == field && kind == varint {
			last = value
		}
		m = rest
	}
	return last
}

// Present tells whether there is a field that is a number.
func (m Message) Present(field int) bool {
	for len(m) > 0 {
		number, kind, _, _, rest, err := m.field()
		if err != nil || number == field && kind == varint {
			return err == nil
		}
		m = rest
	}
	return false
}

// Bool is a field that is true or false.
func (m Message) Bool(field int) bool { return m.Uint(field) != 0 }

// Uints are a field of several numbers, packed or not.
func (m Message) Uints(field int) (all []uint64) {
	for len(m) > 0 {
		number, kind, value, data, rest, err := m.field()
		if err != nil {
			return all
		}
		m = rest
		if number != field {
			continue
		}
		if kind == varint {
			all = append(all, value)
		}
		for len(data) > 0 {
			value, n := binary.Uvarint(data)
			if n <= 0 {
				return all
			}
			all, data = append(all, value), data[n:]
		}
	}
	return all
}

// PutUint appends a number. Zero is absent.
func (m Message) PutUint(field int, value uint64) Message {
	if value == 0 {
		return m
	}
	return m.PutPresent(field, value)
}

// PutPresent appends a number, zero too.
func (m Message) PutPresent(field int, value uint64) Message {
	m = binary.AppendUvarint(m, uint64(field)<<3|varint)
	return binary.AppendUvarint(m, value)
}

// PutBool appends true. False is absent.
func (m Message) PutBool(field int, value bool) Message {
	if !value {
		return m
	}
	return m.PutUint(field, 1)
}

// PutString appends text. Empty text is absent.
func (m Message) PutString(field int, text string) Message {
	if text == "" {
		return m
	}
	return m.Put(field, Message(text))
}

// Put appends a message or bytes, empty ones too.
func (m Message) Put(field int, data Message) Message {
	return append(m.Open(field, len(data)), data...)
}

// Open appends the beginning of a field of bytes, of which so many follow.
func (m Message) Open(field, size int) Message {
	m = binary.AppendUvarint(m, uint64(field)<<3|delimited)
	return binary.AppendUvarint(m, uint64(size))
}

// PutTime appends a google.protobuf.Timestamp. The zero time is absent.
func (m Message) PutTime(field int, t time.Time) Message {
	if t.IsZero() {
		return m
	}
	return m.Put(field, Message(nil).PutUint(1, uint64(t.Unix())).PutUint(2, uint64(t.Nanosecond())))
}

// PutAny appends a google.protobuf.Any.
func (m Message) PutAny(field int, url string, value Message) Message {
	return m.Put(field, Message(nil).PutString(1, url).Put(2, value))
}
