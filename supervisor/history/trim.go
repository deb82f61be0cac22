package history

import (
	"bytes"
	"slices"

	"go.etcd.io/bbolt"
)

// outgrown is a record whose output is to be dropped.
type outgrown struct {
	key key
	// rest is about what is written again: the record and the body without output.
	rest int
}

// trim drops the oldest output until the rest is within the limit, in
// transactions of bounded size. The records stay, and say so.
func (s *Store) trim() error {
	if s.limits.Load().OutputBytes <= 0 || s.sums().output <= s.limits.Load().OutputBytes {
		return nil
	}
	var all []outgrown
	err := s.db.View(func(tx *bbolt.Tx) error {
		all = s.outgrown(tx)
		return nil
	})
	for err == nil && len(all) > 0 && !s.ending.Load() {
		n, size := 0, 0
		for n < len(all) && n < removeBatch && (n == 0 || size+all[n].rest <= stageBytes) {
			size += all[n].rest
			n++
		}
		batch := all[:n]
		all = all[n:]
		err = s.commit(size, func(c *change) error {
			for _, o := range batch {
				if err := c.dropOutput(o.key); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return err
}

// hasNone tells from how encodeHead writes that a record has no output, which for those
// that had theirs dropped before saves the look into the body. False: it may have some.
func hasNone(v []byte) bool {
	return bytes.HasSuffix(v, []byte(`,"output_dropped":true}`)) || bytes.HasSuffix(v, []byte(`,"stdout_bytes":0,"stderr_bytes":0}`))
}

// outgrown chooses the oldest records that have output, never the newest one.
func (s *Store) outgrown(tx *bbolt.Tx) (all []outgrown) {
	output := s.sums().output
	c := tx.Bucket([]byte(bucketRecords)).Cursor()
	newest, _ := c.Last()
	for k, v := c.First(); k != nil && output > s.limits.Load().OutputBytes && string(k) != string(newest); k, v = c.Next() {
		_, id, ok := parseKey(k)
		if !ok || hasNone(v) {
			continue
		}
		if body, n := bodySize(tx, id[:]); n > 0 {
			all = append(all, outgrown{key(k), len(v) + int(body-n)})
			output -= n
		}
	}
	return all
}

// dropOutput takes the output out of a body and notes that in the record. A
// damaged record stays as it is: its output could not be read before either.
func (c *change) dropOutput(k key) error {
	id := k[8:]
	records := c.bucket(bucketRecords)
	value := slices.Clone(records.Get(k[:]))
	before, output := bodySize(c.Tx, id)
	if value == nil || output == 0 {
		return nil // it was removed, or dropped, meanwhile
	}
	b := c.bucket(bucketBodies).Bucket(id)
	var chunks [][]byte
	if err := b.ForEach(func(name, _ []byte) error {
		if isChunk(name) || string(name) == nameTimes {
			chunks = append(chunks, slices.Clone(name))
		}
		return nil
	}); err != nil {
		return err
	}
	for _, name := range chunks {
		if err := b.Delete(name); err != nil {
			return err
		}
	}
	length := len(value)
	h, damaged := decodeHead(k[:], value)
	if damaged == nil {
		h.Stdout, h.Stderr, h.Dropped = 0, 0, true
		var err error
		if value, err = encodeHead(k, h); err != nil {
			return err
		}
		if err := records.Put(k[:], value); err != nil {
			return err
		}
	}
	after, _ := bodySize(c.Tx, id)
	c.bytes += after - before + int64(len(value)-length)
	if damaged == nil {
		c.charge(h.Summary.Owner, 0, after-before+int64(len(value)-length))
	}
	c.output -= output
	return nil
}
