package history

import (
	"errors"
	"fmt"
	"io"

	"github.com/google/uuid"
	"go.etcd.io/bbolt"

	"github.com/capsule-run/capsule/spec/fault"
)

// Has tells whether the history has a record with this id, sound or not.
func (s *Store) Has(id string) bool {
	parsed, err := parseID(id)
	if err != nil {
		return false
	}
	has := false
	err = s.db.View(func(tx *bbolt.Tx) error {
		has = tx.Bucket([]byte(bucketIDs)).Get(parsed[:]) != nil
		return nil
	})
	return has && err == nil
}

// Known tells whether the id is, or was, one of an execution in the history.
// Of those that were removed the newest 100,000 are remembered. An id that
// cannot be looked up is known: it must not be handed out.
func (s *Store) Known(id string) bool {
	parsed, err := parseID(id)
	if err != nil {
		return false
	}
	is := false
	err = s.db.View(func(tx *bbolt.Tx) error {
		is = known(tx, parsed)
		return nil
	})
	return is || err != nil
}

// locate finds the key and the head of a record.
func locate(tx *bbolt.Tx, id uuid.UUID) (key, *head, error) {
	var k key
	sealed := tx.Bucket([]byte(bucketIDs)).Get(id[:])
	if sealed == nil {
		return k, nil, notFound(id.String())
	}
	created, err := unseal(id[:], sealed)
	if err != nil || len(created) != 8 {
		return k, nil, unreadable(id.String(), errors.New("its entry in the index is damaged"))
	}
	copy(k[:], created)
	copy(k[8:], id[:])
	value := tx.Bucket([]byte(bucketRecords)).Get(k[:])
	h, err := decodeHead(k[:], value)
	return k, h, err
}

// Get returns a record. Errors: NotFound; StateUnreadable when it is damaged;
// InvalidValue when id is none.
func (s *Store) Get(id string) (*Record, error) {
	parsed, err := parseID(id)
	if err != nil {
		return nil, err
	}
	var r *Record
	err = s.db.View(func(tx *bbolt.Tx) error {
		_, h, err := locate(tx, parsed)
		if err != nil {
			return err
		}
		r = &Record{Summary: h.Summary, Digest: h.Digest, StdoutBytes: h.Stdout, StderrBytes: h.Stderr, OutputDropped: h.Dropped}
		if r.Request, err = readPiece(tx, parsed, nameRequest, nil); err != nil {
			return err
		}
		r.Response, err = readPiece(tx, parsed, nameResponse, nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Times returns what an Entry had as Times; nil: it had none, or they are
// damaged, or gone with the output. Errors: NotFound.
func (s *Store) Times(id string) ([]byte, error) {
	parsed, err := parseID(id)
	if err != nil {
		return nil, err
	}
	var data []byte
	err = s.db.View(func(tx *bbolt.Tx) error {
		if tx.Bucket([]byte(bucketIDs)).Get(parsed[:]) == nil {
			return notFound(id)
		}
		data, _ = readPiece(tx, parsed, nameTimes, nil) // without them all is there but the times
		return nil
	})
	return data, err
}

// readPiece returns a copy of a piece of the body of id, in the memory of room if
// it has enough.
func readPiece(tx *bbolt.Tx, id uuid.UUID, name string, room []byte) ([]byte, error) {
	b := tx.Bucket([]byte(bucketBodies)).Bucket(id[:])
	if b == nil {
		return nil, unreadable(id.String(), errors.New("its body is missing"))
	}
	data, err := unseal(pieceName(id, name), b.Get([]byte(name)))
	if err != nil {
		return nil, unreadable(id.String(), fmt.Errorf("piece %q: %w", name, err))
	}
	return append(room[:0], data...), nil
}

// Output returns what was kept of a stream, "stdout" or "stderr". It is read
// piece by piece, 1 MiB in memory; a record that is removed meanwhile, or whose
// output is dropped, is NotFound to Read. Errors as Get, and NotFound of a
// record that has OutputDropped.
func (s *Store) Output(id, stream string) (io.ReadSeekCloser, error) {
	parsed, err := parseID(id)
	if err != nil {
		return nil, err
	}
	o := &output{store: s, id: parsed, chunk: -1}
	err = s.db.View(func(tx *bbolt.Tx) error {
		_, h, err := locate(tx, parsed)
		if err != nil {
			return err
		}
		switch stream {
		case "stdout":
			o.stream, o.size = streamStdout, h.Stdout
		case "stderr":
			o.stream, o.size = streamStderr, h.Stderr
		default:
			return fault.New(fault.InvalidValue, "read output", "a stream is stdout or stderr").WithField("/stream")
		}
		if h.Dropped {
			return notKept(id)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return o, nil
}

// output reads a stream. Between two reads no transaction is open: one that
// waits for a slow reader would keep the file from growing.
type output struct {
	store  *Store
	id     uuid.UUID
	stream byte
	size   int64
	at     int64
	chunk  int64 // number of data; -1: none
	data   []byte
}

// Read implements io.Reader.
func (o *output) Read(p []byte) (int, error) {
	switch {
	case o.store == nil:
		return 0, fault.New(fault.IO, "read output", "it is closed")
	case len(p) == 0:
		return 0, nil
	case o.at >= o.size:
		return 0, io.EOF
	}
	if want := o.at / chunkBytes; want != o.chunk {
		if err := o.load(want); err != nil {
			return 0, err
		}
	}
	n := copy(p, o.data[o.at%chunkBytes:])
	o.at += int64(n)
	return n, nil
}

func (o *output) load(chunk int64) error {
	return o.store.db.View(func(tx *bbolt.Tx) error {
		if tx.Bucket([]byte(bucketIDs)).Get(o.id[:]) == nil {
			return notFound(o.id.String())
		}
		room := o.data
		o.data, o.chunk = nil, -1 // whatever comes of it, what it had is overwritten
		data, err := readPiece(tx, o.id, chunkName(o.stream, chunk), room)
		if err != nil {
			if _, h, headErr := locate(tx, o.id); headErr == nil && h.Dropped {
				return notKept(o.id.String())
			}
			return err
		}
		if int64(len(data)) != min(chunkBytes, o.size-chunk*chunkBytes) {
			return unreadable(o.id.String(), fmt.Errorf("chunk %d of its output has %d bytes", chunk, len(data)))
		}
		o.data, o.chunk = data, chunk
		return nil
	})
}

// Seek implements io.Seeker.
func (o *output) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += o.at
	case io.SeekEnd:
		offset += o.size
	}
	if offset < 0 {
		return 0, fault.New(fault.OutOfRange, "seek output", "the position is negative")
	}
	o.at = offset
	return offset, nil
}

// Close implements io.Closer.
func (o *output) Close() error {
	o.store, o.data = nil, nil
	return nil
}
