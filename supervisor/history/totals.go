package history

import (
	"encoding/binary"

	"go.etcd.io/bbolt"
)

// totals are of the records in the file.
type totals struct {
	count int
	bytes int64
	// output is how much of bytes is stdout and stderr, checksums not counted.
	output int64
}

// totalsBytes is the length of the totals in the file. Older files have no third
// number; who finds another length counts again.
const totalsBytes = 24

// Totals are how many executions are kept and the bytes that they take, keys,
// requests and output included.
func (s *Store) Totals() (count int, bytes int64) {
	t := s.sums()
	return t.count, t.bytes
}

// sums are the totals of now.
func (s *Store) sums() totals {
	s.state.Lock()
	defer s.state.Unlock()
	return s.totals
}

// putTotals stores t.
func putTotals(tx *bbolt.Tx, t totals) error {
	b := make([]byte, 0, totalsBytes)
	for _, n := range []int64{int64(t.count), t.bytes, t.output} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return tx.Bucket([]byte(bucketMeta)).Put([]byte(keyTotals), seal([]byte(keyTotals), b))
}

// readTotals reads the totals; false: they are damaged or of another length.
func (s *Store) readTotals(tx *bbolt.Tx) bool {
	b, err := unseal([]byte(keyTotals), tx.Bucket([]byte(bucketMeta)).Get([]byte(keyTotals)))
	if err != nil || len(b) != totalsBytes {
		return false
	}
	number := func(at int) int64 { return int64(binary.BigEndian.Uint64(b[at:])) }
	s.totals = totals{int(number(0)), number(8), number(16)}
	return true
}

// loadTotals reads the totals, or counts again.
func (s *Store) loadTotals(tx *bbolt.Tx) error {
	if s.readTotals(tx) {
		return nil
	}
	s.totals = totals{}
	err := tx.Bucket([]byte(bucketRecords)).ForEach(func(k, v []byte) error {
		_, id, _ := parseKey(k)
		body, output := bodySize(tx, id[:])
		s.totals.count++
		s.totals.bytes += int64(len(k)+len(v)) + body
		s.totals.output += output
		return nil
	})
	if err != nil {
		return err
	}
	return putTotals(tx, s.totals)
}
