package history

import "bytes"

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
func Check(data []byte) error { return check(bytes.NewReader(data), int64(len(data))) }

// OutputTotal is how much output s has.
func OutputTotal(s *Store) int64 { return s.sums().output }
