package spec

import (
	"bytes"
	"encoding/json"

	"github.com/go-json-experiment/json/jsontext"
)

// Encode gives the request as one JSON document on one line. DecodeResolved
// reads it back to an equal request, and so does DecodeRequest when the
// request is valid and complete.
func (r *Request) Encode() []byte {
	size := 2048
	if r.Stdin != nil {
		size += 2 * len(*r.Stdin)
	}
	return append(appendObject(make([]byte, 0, size), &requestObject, r), '\n')
}

// The forms below are those of the decoder and Encode; the methods offer them
// to encoding/json for a request that is part of another document.

// MarshalJSON gives a string when b is UTF-8 and otherwise {"base64": "..."}.
func (b Bytes) MarshalJSON() ([]byte, error) { return appendBytes(nil, b), nil }

// UnmarshalJSON reads either form of MarshalJSON. Its errors are those of
// DecodeRequest with pointers that begin at the value.
func (b *Bytes) UnmarshalJSON(data []byte) error {
	p := b
	return decodeValue(data, &stdinField, &p, func() {
		// A null leaves b as it is, as encoding/json asks of its callees.
		if p != nil {
			*b = *p
		}
	})
}

var stdinField = field{object: &stdinObject}

// MarshalJSON gives the name, or the object when there is one.
func (s Seccomp) MarshalJSON() ([]byte, error) { return appendSeccomp(nil, s), nil }

// UnmarshalJSON reads a name or an object.
func (s *Seccomp) UnmarshalJSON(data []byte) error {
	var fresh Seccomp
	return decodeValue(data, &field{}, &fresh, func() { *s = fresh })
}

// MarshalJSON gives {"soft": ..., "hard": ...}.
func (l Rlimit) MarshalJSON() ([]byte, error) { return appendObject(nil, &rlimitObject, &l), nil }

// UnmarshalJSON reads a number, which sets both, or an object.
func (l *Rlimit) UnmarshalJSON(data []byte) error {
	var fresh Rlimit
	d := newValueDecoder(data)
	d.rlimit(&field{object: &rlimitObject}, &fresh)
	if err := d.err(); err != nil {
		return err
	}
	*l = fresh
	return nil
}

// decodeValue reads one value into ref and calls store when there is no fault.
func decodeValue(data []byte, f *field, ref any, store func()) error {
	d := newValueDecoder(data)
	d.value(f, ref)
	if err := d.err(); err != nil {
		return err
	}
	store()
	return nil
}

func newValueDecoder(data []byte) *decoder {
	return &decoder{data: data, in: jsontext.NewDecoder(bytes.NewBuffer(data), jsontext.AllowDuplicateNames(true))}
}

var (
	_ json.Marshaler   = Bytes(nil)
	_ json.Unmarshaler = (*Bytes)(nil)
	_ json.Marshaler   = Seccomp{}
	_ json.Unmarshaler = (*Seccomp)(nil)
	_ json.Marshaler   = Rlimit{}
	_ json.Unmarshaler = (*Rlimit)(nil)
)
