package history

import (
	"encoding/binary"
	"io"
	"slices"

	"github.com/google/uuid"
	"go.etcd.io/bbolt"

	"github.com/capsule-run/capsule/spec/fault"
)

// Keys in the bucket of a body. Those of chunks are the stream and the number
// of the chunk, four bytes.
const (
	nameRequest  = "request"
	nameResponse = "response"
	nameTimes    = "output_times"
	streamStdout = 'o'
	streamStderr = 'e'
)

// piece is a value in the bucket of a body.
type piece struct {
	name string
	data []byte
	// from has the data instead, length bytes at an offset.
	from       io.ReaderAt
	at, length int64
}

// seal is the value of a piece, in the memory of room if it has enough.
func (p *piece) seal(id uuid.UUID, room []byte) ([]byte, error) {
	size := int64(len(p.data))
	if p.from != nil {
		size = p.length
	}
	sealed := slices.Grow(room[:0], checksumBytes+int(size))[:checksumBytes+size]
	payload := sealed[checksumBytes:]
	if p.from == nil {
		copy(payload, p.data)
	} else if n, err := p.from.ReadAt(payload, p.at); n < len(payload) {
		return room, fault.Wrap(fault.IO, "read output", err)
	}
	binary.BigEndian.PutUint32(sealed, checksum(pieceName(id, p.name), payload))
	return sealed, nil
}

func chunkName(stream byte, number int64) string {
	return string(binary.BigEndian.AppendUint32([]byte{stream}, uint32(number)))
}

// isChunk tells whether the key in the bucket of a body is of a chunk of output.
func isChunk(k []byte) bool { return len(k) == 5 && (k[0] == streamStdout || k[0] == streamStderr) }

// pieceName is what the checksum of a piece covers besides its data: a piece
// that turns up in another body is not taken for one of it.
func pieceName(id uuid.UUID, name string) []byte {
	return append(id[:len(id):len(id)], name...)
}

// sizes are the lengths of the streams of e.
func (e *Entry) sizes() (stdout, stderr int64) {
	if stdout = int64(len(e.Stdout)); e.StdoutFrom != nil {
		stdout = e.StdoutBytes
	}
	if stderr = int64(len(e.Stderr)); e.StderrFrom != nil {
		stderr = e.StderrBytes
	}
	return stdout, stderr
}

// split cuts the output of e into chunks.
func split(e *Entry) []piece {
	var pieces []piece
	stdout, stderr := e.sizes()
	cut := func(stream byte, data []byte, from io.ReaderAt, size int64) {
		for at := int64(0); at < size; at += chunkBytes {
			p := piece{name: chunkName(stream, at/chunkBytes), from: from, at: at, length: min(size-at, chunkBytes)}
			if from == nil {
				p.data = data[at : at+p.length]
			}
			pieces = append(pieces, p)
		}
	}
	cut(streamStdout, e.Stdout, e.StdoutFrom, stdout)
	cut(streamStderr, e.Stderr, e.StderrFrom, stderr)
	return pieces
}

func putPieces(b *bbolt.Bucket, id uuid.UUID, pieces []piece) error {
	for i := range pieces {
		sealed, err := pieces[i].seal(id, nil)
		if err != nil {
			return err
		}
		if err := b.Put([]byte(pieces[i].name), sealed); err != nil {
			return err
		}
	}
	return nil
}

// stage writes the output of e in transactions of bounded size. Put then makes
// it part of a record, or else the next Open drops it.
func (s *Store) stage(id uuid.UUID, e *Entry) error {
	skip := false
	err := s.commit(0, func(c *change) error {
		if skip = known(c.Tx, id); skip {
			return nil
		}
		// An attempt before may have failed half way.
		if err := dropBody(c.Tx, id); err != nil {
			return err
		}
		if _, err := c.bucket(bucketBodies).CreateBucket(id[:]); err != nil {
			return err
		}
		return c.bucket(bucketStaging).Put(id[:], []byte{})
	})
	pieces := split(e)
	// A transaction has done with its values when it ends, so that all groups share memory.
	var sealed [stageBytes / chunkBytes][]byte
	for err == nil && !skip && len(pieces) > 0 {
		group := pieces[:min(len(pieces), len(sealed))]
		pieces = pieces[len(group):]
		for i := range group {
			if err == nil {
				sealed[i], err = group[i].seal(id, sealed[i]) // before the transaction, which others wait for
			}
		}
		if err != nil {
			break
		}
		err = s.commit(stageBytes, func(c *change) error {
			// Without the mark somebody else has put this id.
			if skip = c.bucket(bucketStaging).Get(id[:]) == nil; skip {
				return nil
			}
			b := c.bucket(bucketBodies).Bucket(id[:])
			for i := range group {
				if err := b.Put([]byte(group[i].name), sealed[i]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil {
		// The space is wanted back now; should it fail, the next Open does it.
		_ = s.commit(0, func(c *change) error {
			if c.bucket(bucketStaging).Get(id[:]) == nil {
				return nil
			}
			if err := dropBody(c.Tx, id); err != nil {
				return err
			}
			return c.bucket(bucketStaging).Delete(id[:])
		})
	}
	return err
}

// dropStaged removes bodies that no record came to have.
func dropStaged(tx *bbolt.Tx) error {
	staging := tx.Bucket([]byte(bucketStaging))
	var ids []uuid.UUID
	if err := staging.ForEach(func(k, _ []byte) error {
		if id, err := uuid.FromBytes(k); err == nil {
			ids = append(ids, id)
		}
		return nil
	}); err != nil {
		return err
	}
	for _, id := range ids {
		// A damaged mark may name a body that has a record.
		if tx.Bucket([]byte(bucketIDs)).Get(id[:]) == nil {
			if err := dropBody(tx, id); err != nil {
				return err
			}
		}
		if err := staging.Delete(id[:]); err != nil {
			return err
		}
	}
	return nil
}

// dropBody removes the body of id, if there is one.
func dropBody(tx *bbolt.Tx, id uuid.UUID) error {
	bodies := tx.Bucket([]byte(bucketBodies))
	if bodies.Bucket(id[:]) == nil {
		return nil
	}
	return bodies.DeleteBucket(id[:])
}

// bodySize is what the body of id takes, and how much of that is output. It
// reads no data of the pieces.
func bodySize(tx *bbolt.Tx, id []byte) (bytes, output int64) {
	b := tx.Bucket([]byte(bucketBodies)).Bucket(id)
	if b == nil {
		return 0, 0
	}
	c := b.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		bytes += int64(len(k) + len(v))
		if isChunk(k) {
			output += int64(max(0, len(v)-checksumBytes))
		}
	}
	return bytes, output
}
