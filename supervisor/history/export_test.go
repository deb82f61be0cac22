package history

import "go.etcd.io/bbolt"

// Remember sets how many removed ids s remembers.
func Remember(s *Store, n uint64) { s.remember = n }

// DecodeHead decodes a record for the fuzz test.
func DecodeHead(k, value []byte) error {
	_, err := decodeHead(k, value)
	return err
}

// Seal puts a checksum before v.
func Seal(k, v []byte) []byte { return seal(k, v) }

// Check checks the pages of a file.
func Check(data []byte) error { _, err := check(data); return err }

// OutputTotal is how much output s has.
func OutputTotal(s *Store) int64 { return s.sums().output }

// CompactLeast sets how much must be free for Compact.
func CompactLeast(s *Store, bytes int64) { s.compactLeast = bytes }

// WhileWriting calls f as if a commit were under way.
func WhileWriting(s *Store, f func()) {
	s.writer.Lock()
	defer s.writer.Unlock()
	f()
}

// Shares are the counts and bytes of each owner that s believes in, and those that
// its records have.
func Shares(s *Store) (believed, counted map[uint32][2]int64) {
	s.writer.Lock()
	defer s.writer.Unlock()
	plain := func(m map[uint32]share) map[uint32][2]int64 {
		all := map[uint32][2]int64{}
		for uid, have := range m {
			if have != (share{}) {
				all[uid] = [2]int64{int64(have.count), have.bytes}
			}
		}
		return all
	}
	_ = s.db.View(func(tx *bbolt.Tx) error {
		_, all := ownersBeyond(tx, Owners{}, &sieve{})
		counted = plain(all)
		return nil
	})
	return plain(s.shares), counted
}
